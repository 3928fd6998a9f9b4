"""The papers' tables: printed numbers beside those of finished runs."""
