"""The life of a lead: its facts and its log, scores, decisions and what time brings about; read and written by batches."""
