"""The papers' tables: printed numbers beside those of finished runs.

`table.py` reads what is printed and what each printed name is called here, `fill.py` merges it with
the rows of finished runs into one tidy table, `layout.py` and `document.py` write it, `missing.py`
says which runs would fill its holes.
"""
