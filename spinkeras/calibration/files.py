"""Reads text files and Excel sheets of measurements into columns of cells with line numbers.

pandas splits the file into cells, all of them text. What a cell means is decided later and said.
"""

import collections
import io
import itertools
import os
import re

from spinkeras.calibration.cells import Cells, is_number
from spinkeras.calibration.conditions import direction_of
from spinkeras.calibration.names import is_known, known_unit, split

_COMMENTS = ("#", "%")
_WORKBOOK = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes; instruments name texts .xls, too
# Spaces between cells. A unit in brackets belongs to the name before, and may contain spaces.
_SPACES = r"\s+(?![\[(]|[^\[(]*[\])])"


def read(path, names=None, sheet=None) -> Cells:
    """Cells of a file.

    Tabs, semicolons, commas or spaces separate the cells. The separator is the first of these, in
    this order, that the first line of cells contains. Blank lines, and lines that start with `#`
    or `%`, are skipped.

    Args:
        path: path of a text file or of an Excel or OpenDocument workbook.
        names: names of the columns, for a file without a line of names.
        sheet: name of the sheet, for a workbook with several sheets.
    """
    where = os.path.basename(os.fspath(path))
    with open(path, "rb") as file:
        content = file.read()
    if content.startswith(_WORKBOOK):
        records, lines = _sheet(content, where, sheet)
        return _named(records, lines, None, names, where, commas=True)
    if sheet is not None:
        raise ValueError(
            f"sheet = {sheet!r} is for workbooks, but {where} is a text file; leave sheet out."
        )
    text, notes = _text(content, where)
    records, lines, comment, separator = _records(text, where)
    cells = _named(records, lines, comment, names, where, commas=separator != ",")
    cells.notes[:0] = notes
    return cells


def _text(content, where):
    """Text of a file, and a list of guesses about its encoding."""
    if b"\0" in content and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(
            f"{where} is not text in UTF-8: it contains zero bytes, as UTF-16 without its mark or "
            "as a binary file; save the file as text in UTF-8."
        )
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding), []
    except UnicodeDecodeError as error:
        # Programs on Windows may write the Greek letter of a unit such as uA in Windows-1252.
        # Only comments and names may contain such letters, because numbers never need them.
        lines = [line.strip() for line in content.split(b"\n")]
        cells = [line for line in lines if line and not line.startswith((b"#", b"%"))]
        if encoding == "utf-8-sig" and all(line.isascii() for line in cells[1:]):
            try:
                return content.decode("cp1252"), ["the encoding Windows-1252"]
            except UnicodeDecodeError:
                pass
        raise ValueError(
            f"{where} is not text in UTF-8 ({error}); save the file in UTF-8 (in Excel: CSV UTF-8)."
        ) from None


def _records(text, where):
    """Records, their line numbers, the last comment before the records, and the separator."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = re.sub(r"\Asep=.\n", "\n", text)  # Excel writes the separator in a line of its own
    rows = text.rstrip("\n").split("\n")
    comment, begun = None, False
    for k, row in enumerate(rows):
        if row.lstrip(' "\t').startswith(_COMMENTS):
            rows[k] = ""  # lines keep their numbers
            comment = comment if begun else row.strip().lstrip("#% ")
        begun = begun or bool(rows[k].strip())
    if not begun:
        return [], [], comment, None
    text = "\n".join(rows)
    unquoted = re.sub(r'"[^"]*"', "", text)
    first = unquoted.strip(" \n").partition("\n")[0]
    separator = next((mark for mark in "\t;," if mark in first), None)
    if separator is None:
        separator, unquoted = _SPACES, text  # between spaces, pandas ignores quotes
    most = max(len(re.split(separator, line.strip(" "))) for line in unquoted.split("\n"))
    records = _split(text, separator, most, where)
    filled = {line: record for line, record in records if any(cell.strip() for cell in record)}
    return list(filled.values()), list(filled), comment, separator


def _split(text, separator, most, where):
    """Line number and cells of every record; a record has at most `most` cells."""
    import pandas

    try:
        frame = pandas.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,
            names=range(most),
            index_col=False,
            dtype=object,
            na_filter=False,
            skip_blank_lines=False,
            engine="python",  # it keeps absent cells apart from empty ones
        )
    except pandas.errors.ParserError as error:
        raise ValueError(f"{where} is not valid CSV: {error}.") from None
    line = 0
    for record in frame.itertuples(index=False, name=None):
        cells = [cell for cell in record if isinstance(cell, str)]
        line += 1 + "".join(cells).count("\n")
        yield line, cells


def _sheet(content, where, sheet):
    """Records and row numbers of a workbook's sheet."""
    import pandas

    try:
        frames = pandas.read_excel(io.BytesIO(content), sheet_name=None, header=None, dtype=object)
    except ImportError as error:
        raise ImportError(
            f"{where} is a workbook, which needs openpyxl ({error}): "
            "pip install openpyxl, or save the sheet as CSV."
        ) from error
    except Exception as error:  # readers raise many kinds of errors for a damaged workbook
        raise ValueError(
            f"{where} cannot be read as a workbook ({error}); unpack an archive, or save the table "
            "as CSV."
        ) from None
    frames = {name: frame for name, frame in frames.items() if frame.notna().any(axis=None)}
    if sheet is None and len(frames) > 1:
        raise ValueError(f"{where} has the sheets {list(frames)}; choose one by sheet=....")
    if sheet is not None and sheet not in frames:
        raise ValueError(f"{where} has no sheet {sheet!r} with cells in it; it has {list(frames)}.")
    records, lines = [], []
    for frame in [frames[sheet]] if sheet is not None else frames.values():
        rows = frame.where(frame.notna(), "").to_numpy().tolist()
        for number, record in enumerate(rows, 1):
            first = next((str(cell) for cell in record if str(cell).strip()), "#")
            if not first.lstrip().startswith(_COMMENTS):
                records.append(record)
                lines.append(number)
    return records, lines


def _named(records, lines, comment, names, where, commas):
    """`Cells` with names of columns from the caller, the first record or the comment."""
    notes = []
    bare = bool(records) and all(is_number(c) or direction_of(c) for c in records[0])
    if not records:
        raise ValueError(f"{where} is empty; its first line must name the columns.")
    if names is not None:
        if not bare:
            raise ValueError(
                f"{where} has a line of names, {[str(c) for c in records[0]][:20]}; a list of "
                "columns is only for files without such a line. Give the column of each quantity "
                "in a dictionary: columns={'voltage_v': 'V'}."
            )
        header = [str(name).strip() for name in names]
    elif bare:
        header = _from_comment(comment, len(records[0]))
        if header is None:
            raise ValueError(
                f"{where} has no line of names: its first line is {_shown(records[0])}. Name "
                "all columns in order, for example columns=['voltage_v', 'fraction']."
            )
        notes.append(f"the names {header} from the comment above the numbers")
    else:
        header = [str(cell).strip() for cell in records[0]]
        records, lines = records[1:], lines[1:]
        if records and _are_units(records[0]):
            header = [_with_unit(*pair) for pair in itertools.zip_longest(header, records[0])]
            records, lines = records[1:], lines[1:]
            if records and not any(is_number(cell) for cell in records[0]):
                notes.append(f"line {lines[0]} as a comment")
                records, lines = records[1:], lines[1:]
    # A separator at the end of every line makes an empty column.
    while header and not header[-1] and all(_blank(r[len(header) - 1 :]) for r in records):
        header = header[:-1]
    wide = len(header)
    records = [r[:wide] if len(r) > wide and _blank(r[wide:]) else r for r in records]
    _refuse_ragged(records, lines, header, names is not None, where, commas)
    unnamed = [k for k, name in enumerate(header) if not name]
    empty = [k for k in unnamed if all(_blank(record[k : k + 1]) for record in records)]
    header = [name or f"column {k + 1}" for k, name in enumerate(header)]
    twice = [name for name, count in collections.Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"{where} names the columns {twice} more than once.")
    columns = {
        name: [record[k] for record in records] for k, name in enumerate(header) if k not in empty
    }
    return Cells(columns, lines, where, None, commas, notes)


def _refuse_ragged(records, lines, header, listed, where, commas):
    """Refuse records that have more or fewer cells than there are names."""
    for record, line in zip(records, lines):
        if len(record) != len(header):
            if listed:
                raise ValueError(
                    f"{where}, line {line}: {len(record)} values, but columns names {len(header)}."
                )
            hint = " Decimal commas need ; or tabs between the cells." if not commas else ""
            raise ValueError(
                f"{where}, line {line}: {len(record)} values, but the first line names "
                f"{len(header)} columns.{hint}{names_below(header)}"
            )


def names_below(header):
    """A hint for a first line that has no known name."""
    if any(map(is_known, header)):
        return ""
    return " If a later line has the names, put # in front of the lines above it."


def _blank(cells):
    return not any(str(cell).strip() for cell in cells)


def _are_units(record):
    """Whether a record below the names has the units, as OriginLab writes them."""
    units = {known_unit(_bare(cell)) for cell in record} - {None, "-"}  # "-" may be no value
    return bool(units) and not any(is_number(c) for c in record)


def _with_unit(name, cell):
    """A name with the unit from the line of units, if the name states no unit itself."""
    if not name or not cell or not _bare(cell) or split(name)[1]:
        return name or ""
    return f"{name} ({_bare(cell)})"


def _bare(cell):
    """A cell without brackets around it."""
    return str(cell).strip().strip("[()]")


def _from_comment(comment, length):
    """Names in a comment, if it has one name per column; else `None`."""
    if not comment:
        return None
    for mark in ("\t", ";", ","):
        parts = [part.strip() for part in comment.split(mark)]
        if len(parts) == length:
            return parts if not any(map(is_number, parts)) else None
    words = re.split(_SPACES, comment)
    return words if len(words) == length and not any(map(is_number, words)) else None


def _shown(record):
    text = ", ".join(str(cell) for cell in record)
    return repr(text if len(text) < 60 else text[:57] + "...")
