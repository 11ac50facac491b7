"""Seeded trials with hostile and malformed input, in classes; `pytest -m campaign` runs them.

A class is a module here with

    NAME: str                                  # its name in the table
    def trial(seed: int, folder: Path) -> str | None

`trial` does one trial in an empty folder. It returns None if all was well, or one line that says
what was wrong. It may have `TRIALS` (how many a campaign aims at, 500 if it is not there), `SHARE`
(how many of them run with the ordinary tests, 5), and `SECONDS` (when a trial is killed, 300).
`invariant.py` has the promise that most trials check.
"""
