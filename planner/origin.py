"""What a plan was solved from: with it, its question can be asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from planner.codec_table import CodecName, codec_file
from planner.documents import document, file_digest
from planner.errors import DocumentError, MismatchError


@document()
class TableFile:
    """A profile table as it was read: the absolute path of its CSV, and the SHA-256 of it, of its sidecar and, where
    there is one, of its codecs."""

    file: str
    sha256: str
    sidecar_sha256: str
    codecs_sha256: str | None = None

    @staticmethod
    def of(file: Path) -> TableFile:
        """Raises ``DocumentError``."""
        codecs = codec_file(file)
        return TableFile(
            str(file.resolve()),
            _digest(file),
            _digest(file.with_suffix(".json")),
            _digest(codecs) if codecs.exists() else None,
        )

    def find(self, beside: Path) -> Path:
        """Where the table is: at its path, or under its name in the folder ``beside``.

        Raises ``DocumentError`` where it is in neither, ``MismatchError`` where it has changed.
        """
        at = Path(self.file)
        file = next((each for each in (at, beside / at.name) if each.exists()), None)
        if file is None:
            problem = f"the plan was solved from it, and it is neither there nor in {beside}"
            raise DocumentError(at, "", problem, "pass the tables with --profiles")
        if changed := list(self._changed(file)):
            raise MismatchError(
                f"{', '.join(changed)} changed after the plan was solved from it",
                "pass --profiles to take the tables as they are now, or solve again",
            )
        return file

    def _changed(self, file: Path) -> Iterator[str]:
        now = TableFile.of(file)
        if now.sha256 != self.sha256:
            yield str(file)
        if now.sidecar_sha256 != self.sidecar_sha256:
            yield str(file.with_suffix(".json"))
        if now.codecs_sha256 != self.codecs_sha256:
            yield str(codec_file(file))


@document()
class Origin:
    """What a plan was solved from, beside its limits, its batch and the objective and statistic of its proof.

    ``profiles``: none where the tables were in memory. ``codecs``: that hops might use; None where nobody chose, then
    `solve` takes its default. ``partial``: bundles missing from the tables were allowed.
    """

    profiles: tuple[TableFile, ...] = ()
    codecs: tuple[CodecName, ...] | None = None
    partial: bool = False

    @staticmethod
    def of(
        profiles: tuple[TableFile, ...], codecs: Sequence[CodecName] | None, *, partial: bool = False
    ) -> Origin:
        return Origin(profiles, None if codecs is None else tuple(codecs), partial)

    def find(self, beside: Path) -> list[Path]:
        """The tables' files, unchanged; ``beside``: the plan's folder, where they may have moved with it.

        Raises ``DocumentError`` and ``MismatchError``.
        """
        return [table.find(beside) for table in self.profiles]


def _digest(file: Path) -> str:
    try:
        return file_digest(file)
    except FileNotFoundError:
        raise DocumentError(file, "", "no such file", "check the path") from None
    except OSError as error:
        raise DocumentError(file, "", f"cannot be read: {error}") from error
