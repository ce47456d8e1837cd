"""Say why models fail: python -m error_analysis A.h5 B.h5 ... writes a report of these ranking files and prints where it is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from error_analysis.analysis import Options
from error_analysis.study import open_rankings, study
from error_analysis.summary import sentences


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m error_analysis", description="Say why models fail.")
    parser.add_argument("rankings", nargs="+", type=Path, help="ranking files of one split, one for each model")
    parser.add_argument("--corpus", default="", help="corpus folder that was ranked; by default the one the first file names")
    parser.add_argument("--names", nargs="+", default=(), help="names of the models; by default the models' own")
    parser.add_argument("--judgements", nargs="+", default=(), type=Path, help="files of further right pairs (JSON or CSV)")
    parser.add_argument("--out", type=Path, help="folder of the report; by default reports/<names>")
    given = parser.parse_args(arguments)
    try:
        names = tuple(open_rankings(given.rankings, given.names))
        run_dir = given.out or Path("reports", "-".join(names).replace("/", "-").replace(" ", "-"))
        analysis, index = study(given.rankings, run_dir, Options(), given.corpus, names, given.judgements)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(*sentences(analysis), index, sep="\n")


if __name__ == "__main__":
    main()
