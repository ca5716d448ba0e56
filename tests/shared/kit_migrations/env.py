from accord.migrations.run import run_env

run_env()
