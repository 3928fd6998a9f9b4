"""The papers' tables: printed numbers beside those of finished runs.

`table.py` reads what is printed and what each printed name is called here, `runs.py` finds finished
runs, `fill.py` merges the two into one tidy table, `document.py` writes it, `missing.py` says which
runs would fill its holes, `check.py` compares written tables with their sources.
"""
