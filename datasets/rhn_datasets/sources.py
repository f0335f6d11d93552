"""The published corpora: their addresses, sizes and digests, and how their files are found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rhn_datasets.download import extract, fetch
from rhn_datasets.files import DataError, digest_of


@dataclass(frozen=True)
class Member:
    """One file inside a published archive."""

    path: str  # within the archive
    size: int | None  # bytes; None where nobody has published it
    digest: str  # "sha256:<hexadecimal>", or "sha1:…" or "md5:…" where nothing better was published

    @property
    def filename(self) -> str:
        return PurePosixPath(self.path).name

    def matches(self, file: Path) -> bool:
        """Whether `file` exists and is, byte for byte, this member."""
        algorithm, _, expected = self.digest.partition(":")
        return file.is_file() and self.size in (None, file.stat().st_size) and digest_of(file, algorithm) == expected

    def __str__(self) -> str:
        size = "" if self.size is None else f"of {self.size:,} bytes "
        return f"{self.filename} {size}with {self.digest}"


@dataclass(frozen=True)
class Source:
    """A published archive and the members that make up the corpus: one file, or train, valid and test."""

    url: str
    members: tuple[Member, ...]
    sha256: str | None = None  # of the archive; the members are checked in any case
    size: int | None = None  # of the archive, in bytes
    other_urls: tuple[str, ...] = ()  # asked in this order where `url` does not answer
    folder: str = ""  # within the cache, where another corpus has members of the same names

    @property
    def archive(self) -> str:
        return self.url.rpartition("/")[2]


def _wikitext(name: str, sha256: str, *, train: str, valid: str, test: str) -> Source:
    """The words of WikiText as Merity et al. published them; SHA-1 of the members as GluonNLP checks them.

    The first publisher's address, research.metamind.io at Amazon, has been closed; this one is the first author's.
    """
    digests = {"train": train, "valid": valid, "test": test}
    return Source(
        url=f"https://wikitext.smerity.com/{name}-v1.zip",
        other_urls=(f"https://s3.amazonaws.com/research.metamind.io/wikitext/{name}-v1.zip",),
        members=tuple(Member(f"{name}/wiki.{part}.tokens", None, f"sha1:{digest}") for part, digest in digests.items()),
        sha256=sha256,
        folder=name,
    )


SOURCES = {
    "ptb": Source(
        url="https://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
        other_urls=("http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",),
        members=(
            Member(
                "simple-examples/data/ptb.train.txt",
                5_101_618,
                "sha256:fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            ),
            Member(
                "simple-examples/data/ptb.valid.txt",
                399_782,
                "sha256:c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            ),
            Member(
                "simple-examples/data/ptb.test.txt",
                449_945,
                "sha256:dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            ),
        ),
    ),
    "enwik8": Source(
        url="https://mattmahoney.net/dc/enwik8.zip",
        other_urls=("http://mattmahoney.net/dc/enwik8.zip",),
        members=(
            Member("enwik8", 100_000_000, "sha256:2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8"),
        ),
        sha256="547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
        size=36_445_475,
    ),
    "text8": Source(
        url="https://mattmahoney.net/dc/text8.zip",
        other_urls=("http://mattmahoney.net/dc/text8.zip",),
        members=(Member("text8", 100_000_000, "md5:3bea1919949baf155f99411df5fada7e"),),
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    ),
    "wikitext2": _wikitext(
        "wikitext-2",
        "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
        train="863f29c46ef9d167fff4940ec821195882fe29d1",
        valid="0418625c8b4da6e4b5c7a0b9e78d4ae8f7ee5422",
        test="c7b8ce0aa086fb34dab808c5c49224211eb2b172",
    ),
    "wikitext103": _wikitext(
        "wikitext-103",
        "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
        train="b7497e2dfe77e72cfef5e3dbc61b7b53712ac211",
        valid="c326ac59dc587676d58c422eb8a03e119582f92b",
        test="8a5befc548865cec54ed4273cf87dbbad60d1e47",
    ),
}


def obtain(source: Source, data_path: Path | None, cache: Path, download: bool) -> list[Path]:
    """Paths of the checked members: from `data_path`, an archive in `data_path`, the cache, or the network.

    Args:
        source: the published archive.
        data_path: folder that holds the files or the archive; None if there is none.
        cache: folder for downloads and unpacked files.
        download: whether the network may be used.

    Raises:
        DataError: a local file is not the published one, or no file is found and the download fails or is not allowed.
            The message says which file to put where.
    """
    cache = cache / source.folder
    wanted = " and ".join(member.filename for member in source.members)
    advice = f"put {source.archive} (from {source.url}) or {wanted} into {data_path or cache}"
    if data_path is not None:
        if not data_path.is_dir():
            raise DataError(f"data_path={data_path} is not a folder: {advice}, or leave the option out to download")
        if local := _local_files(source, data_path):
            return local
    unpacked = [cache / member.filename for member in source.members]
    in_cache = all(member.matches(file) for member, file in zip(source.members, unpacked, strict=True))
    if in_cache:
        return unpacked
    for folder in (data_path, cache):
        if folder is not None and (archive := folder / source.archive).is_file():
            return _unpack(source, archive, unpacked)
    if not download:
        raise DataError(f"{wanted} not found and downloading is switched off: {advice}")
    archive = cache / source.archive
    _download(source, archive, advice)
    try:
        return _unpack(source, archive, unpacked)
    except DataError:
        archive.unlink()  # a server may answer with anything, and the next run shall ask again
        raise


def _download(source: Source, archive: Path, advice: str) -> None:
    """Fetch the archive from the first address that has it."""
    failures = []
    for url in (source.url, *source.other_urls):
        try:
            fetch(url, archive, sha256=source.sha256, size=source.size)
            return
        except DataError as error:
            failures.append(str(error))
    raise DataError(f"{'; '.join(failures)}; or {advice}")


def _unpack(source: Source, archive: Path, files: list[Path]) -> list[Path]:
    for member, file in zip(source.members, files, strict=True):
        extract(archive, member.path, file, size=member.size, digest=member.digest)
    return files


def _local_files(source: Source, folder: Path) -> list[Path] | None:
    """The members as plain files in `folder`, or below it as in the archive; None if they are not there."""
    for files in ([folder / m.filename for m in source.members], [folder / m.path for m in source.members]):
        if all(file.is_file() for file in files):
            for member, file in zip(source.members, files, strict=True):
                if not member.matches(file):
                    raise DataError(
                        f"{file} is not the published {member}: replace it, or use dataset=text for a text of your own"
                    )
            return files
    return None
