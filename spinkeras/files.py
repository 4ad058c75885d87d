"""Write files and folders as a whole or not at all.

Content is written to a hidden file or folder beside the final one, flushed to the disk and then
renamed. So a reader always finds the old version or the new one, never a part, also after a kill or
a loss of power.
"""

import contextlib
import os
import pathlib
import shutil
import uuid


def write(path, content):
    """Write text (UTF-8) or bytes to a file; an existing file of that name is replaced."""
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {str(path.parent)!r} for {path.name!r} does not exist; make it first."
        )
    content = content.encode("utf-8") if isinstance(content, str) else content
    hidden = _hidden(path)
    try:
        with _errors_name(path), open(hidden, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with _errors_name(path):
            os.replace(hidden, path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextlib.contextmanager
def _errors_name(path):
    """An error of the system in the `with` block names this path, not the hidden one beside it."""
    try:
        yield
    except OSError as error:
        if error.filename is None or not is_unfinished(pathlib.Path(error.filename).name):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


@contextlib.contextmanager
def new_folder(path):
    """Context that yields a hidden folder to fill, and gives it its final name at the end.

    An existing folder of that name is replaced.
    """
    path = pathlib.Path(path)
    hidden = _hidden(path)
    with _errors_name(path):
        hidden.mkdir(parents=True)
    try:
        yield hidden
        with _errors_name(path):
            publish(hidden, path, replace=True)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def publish(hidden, path, replace=False):
    """Flush a folder to the disk and give it its final name."""
    for parent, _, names in os.walk(hidden):
        for name in (*names, "."):
            sync(os.path.join(parent, name))
    if replace and os.path.isdir(path):
        shutil.rmtree(path)
    elif replace:
        pathlib.Path(path).unlink(missing_ok=True)
    os.rename(hidden, path)
    sync(pathlib.Path(path).parent)


def append(path, lines):
    """Add whole lines of text (UTF-8) to a file, and flush them to the disk."""
    new = not os.path.exists(path)
    with open(path, "ab") as file:
        file.write("".join(f"{line}\n" for line in lines).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(pathlib.Path(path).parent)


def sync(path):
    """Flush a file, or the names in a folder, to the disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_text(path) -> str:
    """Text of a file in UTF-8, or a `ValueError` that names it."""
    path = pathlib.Path(path)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path.name} is not text in UTF-8 (byte {error.start}). Check that the file is the "
            "right one."
        ) from None


def is_unfinished(name) -> bool:
    """Whether this is the name of a hidden file or folder that a killed process left behind."""
    return name.startswith(".") and name.endswith(".part")


def _hidden(path):
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
