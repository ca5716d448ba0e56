"""Qualification: moves leads through the stages that marketing and sales agreed on."""
