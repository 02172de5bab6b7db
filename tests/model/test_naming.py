"""Names and places: what may stand where, and what a rename may do."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.errors import (
    CrossesScopes,
    InvalidName,
    IsADirectory,
    NameExists,
    NotADirectory,
    NotEmpty,
    ScopefsError,
)
from scopefs.model.naming import (
    NAME_MAX_BYTES,
    ROOT_PLACE,
    NodeKind,
    Place,
    check_file_place,
    check_name,
    place_directory,
    plan_rename,
    show_name,
)
from tests.model.strategies import explore, segments

SOURCE = Place(NodeKind.SOURCE, ("a",))
SCOPE = Place(NodeKind.SCOPE, ("a", "b"))
DEEP_SCOPE = Place(NodeKind.SCOPE, ("a", "b", "c"))
FOLDER = Place(NodeKind.FOLDER, ("a", "b"))
DEEP_FOLDER = Place(NodeKind.FOLDER, ("a", "b", "c"))
OTHER_SCOPE = Place(NodeKind.SCOPE, ("a", "x"))
LONGEST = b"x" * NAME_MAX_BYTES

NO_NAMES = [b"", b".", b"..", b"a/b", b"/", b"a\0", LONGEST + b"x"]
ODD_NAMES = [
    b" ", b"-rf", b"a\nb", b"\t", b"\xff\xfe", b"\xc3", "😀".encode(), LONGEST, b"...", b".hidden",
    b"a.json", b"2026-01-21T10-00-00Z.json", b"latest.json", "\u202e.txt".encode(),
]  # fmt: skip


# Names


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_no_directory_entry_can_be_called_is_refused(name: bytes) -> None:
    """The empty name, dots, slash, NUL and more than 255 bytes."""
    with pytest.raises(InvalidName):
        check_name(name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_other_bytes_are_a_name(name: bytes) -> None:
    """255 bytes, newlines, invalid UTF-8 and emoji name a file of its scope."""
    assert check_file_place(SCOPE, name).raw == "a.b"


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("parent", [ROOT_PLACE, SOURCE, SCOPE, DEEP_SCOPE, FOLDER])
def test_no_place_takes_a_bad_name(parent: Place, name: bytes) -> None:
    """Wherever it would stand, neither file nor directory gets such a name."""
    with pytest.raises(InvalidName):
        place_directory(parent, name)
    with pytest.raises(InvalidName):
        check_file_place(parent, name)


@pytest.mark.parametrize(
    ("name", "shown"), [(b"a b", "'a b'"), (b"a\n", r"'a\n'"), (b"\xff", r"'\\xff'")]
)
def test_names_are_shown_escaped(name: bytes, shown: str) -> None:
    """A message stays one readable line, whatever the name."""
    assert show_name(name) == shown


# Directories


@pytest.mark.parametrize(
    ("parent", "name", "expected"),
    [
        (ROOT_PLACE, b"instagram", Place(NodeKind.SOURCE, ("instagram",))),
        (ROOT_PLACE, LONGEST, Place(NodeKind.SOURCE, (LONGEST.decode(),))),
        (SOURCE, b"watch_history", Place(NodeKind.SCOPE, ("a", "watch_history"))),
        (SCOPE, b"shared", Place(NodeKind.SCOPE, ("a", "b", "shared"))),
        (SCOPE, b"Shared", FOLDER),
        (SCOPE, b"My Photos", FOLDER),
        (SCOPE, b"2024", FOLDER),
        (SCOPE, b"_x", FOLDER),
        (SCOPE, b"a.b", FOLDER),
        (SCOPE, b"\xff", FOLDER),
        (DEEP_SCOPE, b"shared", DEEP_FOLDER),
        (DEEP_SCOPE, b"My Photos", DEEP_FOLDER),
        (FOLDER, b"shared", FOLDER),
        (FOLDER, b"2024", FOLDER),
        (DEEP_FOLDER, b"shared", DEEP_FOLDER),
    ],
)
def test_a_directory_is_what_its_place_and_name_say(
    parent: Place, name: bytes, expected: Place
) -> None:
    """Two levels of segments, perhaps a third, and below a scope any other name is a folder."""
    assert place_directory(parent, name) == expected


@pytest.mark.parametrize(
    ("parent", "name", "words"),
    [
        (ROOT_PLACE, b"Photos", "cannot be a source: it has the capital letter 'P'"),
        (ROOT_PLACE, b"Photos", "try 'photos'"),
        (ROOT_PLACE, b"2024", "cannot be a source: it starts with '2'"),
        (ROOT_PLACE, b"2024", "try 'from_2024'"),
        (ROOT_PLACE, b"a.b", "cannot be a source: it has '.'"),
        (ROOT_PLACE, b".scopefs", "cannot be a source"),
        (ROOT_PLACE, b".Trash-1000", "cannot be a source"),
        (ROOT_PLACE, b"\xff", "cannot be a source"),
        (SOURCE, b"My Photos", "cannot be a category: it has"),
        (SOURCE, b"My Photos", "try 'my_photos'"),
        (SOURCE, b".versions", "cannot be a category"),
        (SOURCE, b"a-b", "cannot be a category: it has '-'"),
        (SCOPE, b".versions", "nothing can be made there"),
        (SCOPE, b".history", "nothing can be made there"),
        (DEEP_SCOPE, b".versions", "nothing can be made there"),
    ],
)
def test_a_refused_directory_is_told_why(parent: Place, name: bytes, words: str) -> None:
    """The message says what the directory cannot be, why, and which name would do."""
    with pytest.raises(InvalidName, match=re.escape(words)):
        place_directory(parent, name)


@explore
@given(segments, segments, segments)
def test_three_segments_lead_to_their_scope(source: str, category: str, sub: str) -> None:
    """Walking down by segments arrives at the scope that they spell."""
    place = ROOT_PLACE
    for segment in (source, category, sub):
        place = place_directory(place, segment.encode())
    assert place.scope is not None
    assert place.scope.raw == f"{source}.{category}.{sub}"


@explore
@given(st.lists(st.binary(min_size=1, max_size=6) | segments.map(str.encode), max_size=6))
def test_every_path_has_a_place_or_is_refused(path: list[bytes]) -> None:
    """From the root down, each directory has a place of valid scope, or InvalidName is raised."""
    place = ROOT_PLACE
    for name in path:
        try:
            place = place_directory(place, name)
        except InvalidName:
            return
        assert (place.scope is None) == (place.kind is NodeKind.SOURCE)


# Files


@pytest.mark.parametrize(
    ("parent", "scope"),
    [(SCOPE, "a.b"), (DEEP_SCOPE, "a.b.c"), (FOLDER, "a.b"), (DEEP_FOLDER, "a.b.c")],
)
def test_a_file_belongs_to_the_scope_above_it(parent: Place, scope: str) -> None:
    """In a scope and in any of its folders a file is the scope's."""
    assert check_file_place(parent, b"profile.json").raw == scope


@pytest.mark.parametrize(
    ("parent", "words"),
    [
        (ROOT_PLACE, "'profile.json' cannot be at the root"),
        (SOURCE, "'profile.json' cannot be directly in a source"),
        (ROOT_PLACE, "two lower-case levels down"),
    ],
)
def test_no_file_stands_above_the_scopes(parent: Place, words: str) -> None:
    """The message says where the file would be, and where files live."""
    with pytest.raises(InvalidName, match=words):
        check_file_place(parent, b"profile.json")


@pytest.mark.parametrize("parent", [SCOPE, DEEP_SCOPE])
@pytest.mark.parametrize("name", [b".versions", b".history"])
def test_no_file_hides_the_history(parent: Place, name: bytes) -> None:
    """The names under which a scope shows its versions cannot be made."""
    with pytest.raises(InvalidName, match="shows the scope's history"):
        check_file_place(parent, name)


# Renames

FILE_HERE = (SCOPE, NodeKind.FILE, False)
SYMLINK_HERE = (SCOPE, NodeKind.SYMLINK, False)
FOLDER_HERE = (SCOPE, NodeKind.FOLDER, False)
EMPTY_FOLDER_HERE = (SCOPE, NodeKind.FOLDER, True)
SUBSCOPE_HERE = (SCOPE, NodeKind.SCOPE, False)
EMPTY_SUBSCOPE_HERE = (SCOPE, NodeKind.SCOPE, True)
SCOPE_HERE = (SOURCE, NodeKind.SCOPE, False)
EMPTY_SCOPE_HERE = (SOURCE, NodeKind.SCOPE, True)
SOURCE_HERE = (ROOT_PLACE, NodeKind.SOURCE, False)
EMPTY_SOURCE_HERE = (ROOT_PLACE, NodeKind.SOURCE, True)

Entry = tuple[Place, NodeKind, bool]


@pytest.mark.parametrize("source", [FILE_HERE, SYMLINK_HERE])
@pytest.mark.parametrize("parent", [SCOPE, FOLDER])
def test_a_file_moves_freely_inside_its_scope(source: Entry, parent: Place) -> None:
    """Between a scope and its folders a rename only moves the name."""
    assert plan_rename(source, parent, b"new", None) is None


@pytest.mark.parametrize("source", [FILE_HERE, SYMLINK_HERE])
@pytest.mark.parametrize("parent", [DEEP_SCOPE, DEEP_FOLDER, OTHER_SCOPE])
def test_a_file_is_copied_into_another_scope(source: Entry, parent: Place) -> None:
    """Across scopes a rename asks for a copy; a subcategory is another scope."""
    with pytest.raises(CrossesScopes):
        plan_rename(source, parent, b"new", None)


@pytest.mark.parametrize(
    ("parent", "name"),
    [(ROOT_PLACE, b"x"), (SOURCE, b"x"), (SCOPE, b".versions"), (SCOPE, b""), (SCOPE, b"a/b")],
)
def test_a_file_is_not_renamed_to_where_it_could_not_be_made(parent: Place, name: bytes) -> None:
    """What cannot be created cannot be reached by a rename."""
    with pytest.raises(InvalidName):
        plan_rename(FILE_HERE, parent, name, None)


@pytest.mark.parametrize(
    ("source", "parent", "name", "expected"),
    [
        (FOLDER_HERE, SCOPE, b"New Name", FOLDER),
        (FOLDER_HERE, FOLDER, b"photos", FOLDER),
        ((FOLDER, NodeKind.FOLDER, False), SCOPE, b"Photos", FOLDER),
        ((DEEP_SCOPE, NodeKind.FOLDER, False), DEEP_SCOPE, b"photos", DEEP_FOLDER),
        (EMPTY_FOLDER_HERE, SCOPE, b"photos", Place(NodeKind.SCOPE, ("a", "b", "photos"))),
        (EMPTY_FOLDER_HERE, OTHER_SCOPE, b"Photos", Place(NodeKind.FOLDER, ("a", "x"))),
        (EMPTY_SUBSCOPE_HERE, SCOPE, b"Photos", FOLDER),
        (EMPTY_SCOPE_HERE, SOURCE, b"new", Place(NodeKind.SCOPE, ("a", "new"))),
        (EMPTY_SCOPE_HERE, ROOT_PLACE, b"new", Place(NodeKind.SOURCE, ("new",))),
        (EMPTY_SOURCE_HERE, ROOT_PLACE, b"new", Place(NodeKind.SOURCE, ("new",))),
    ],
)
def test_a_directory_becomes_what_its_new_place_says(
    source: Entry, parent: Place, name: bytes, expected: Place
) -> None:
    """A folder moves inside its scope; an empty directory may become anything."""
    assert plan_rename(source, parent, name, None) == expected


@pytest.mark.parametrize(
    ("source", "parent", "name"),
    [
        (FOLDER_HERE, SCOPE, b"photos"),
        (FOLDER_HERE, DEEP_SCOPE, b"Photos"),
        (FOLDER_HERE, OTHER_SCOPE, b"Photos"),
        (FOLDER_HERE, SOURCE, b"photos"),
        (FOLDER_HERE, ROOT_PLACE, b"photos"),
        (SUBSCOPE_HERE, SCOPE, b"renamed"),
        (SUBSCOPE_HERE, SCOPE, b"Renamed"),
        (SUBSCOPE_HERE, FOLDER, b"renamed"),
        (SUBSCOPE_HERE, OTHER_SCOPE, b"renamed"),
        (SCOPE_HERE, SOURCE, b"renamed"),
        (SCOPE_HERE, SCOPE, b"renamed"),
        (SOURCE_HERE, ROOT_PLACE, b"renamed"),
    ],
)
def test_what_a_scope_holds_is_copied_to_another(source: Entry, parent: Place, name: bytes) -> None:
    """A directory that is not empty never changes its scope, nor becomes one, by a rename."""
    with pytest.raises(CrossesScopes):
        plan_rename(source, parent, name, None)


@pytest.mark.parametrize("source", [EMPTY_SCOPE_HERE, SCOPE_HERE, EMPTY_FOLDER_HERE, FOLDER_HERE])
@pytest.mark.parametrize(
    ("parent", "name"), [(SOURCE, b"My Photos"), (ROOT_PLACE, b"2024"), (SCOPE, b".history")]
)
def test_a_directory_is_not_renamed_to_where_it_could_not_be_made(
    source: Entry, parent: Place, name: bytes
) -> None:
    """A name that mkdir refuses is refused by rename."""
    with pytest.raises(InvalidName):
        plan_rename(source, parent, name, None)


FILE, SYMLINK, FOLDER_KIND, SCOPE_KIND = (
    NodeKind.FILE, NodeKind.SYMLINK, NodeKind.FOLDER, NodeKind.SCOPE,
)  # fmt: skip


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (FILE_HERE, (FILE, True)),
        (FILE_HERE, (SYMLINK, True)),
        (SYMLINK_HERE, (FILE, True)),
        (FOLDER_HERE, (FOLDER_KIND, True)),
        (EMPTY_FOLDER_HERE, (SCOPE_KIND, True)),
    ],
)
def test_a_rename_replaces_what_rename_may_replace(
    source: Entry, target: tuple[NodeKind, bool]
) -> None:
    """A file replaces a file, a directory an empty directory."""
    expected = FOLDER if source[1].is_directory else None
    assert plan_rename(source, SCOPE, b"Taken", target) == expected


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        (FILE_HERE, (FOLDER_KIND, True), IsADirectory),
        (FILE_HERE, (FOLDER_KIND, False), IsADirectory),
        (SYMLINK_HERE, (SCOPE_KIND, True), IsADirectory),
        (FOLDER_HERE, (FILE, True), NotADirectory),
        (EMPTY_FOLDER_HERE, (SYMLINK, True), NotADirectory),
        (FOLDER_HERE, (FOLDER_KIND, False), NotEmpty),
        (EMPTY_FOLDER_HERE, (SCOPE_KIND, False), NotEmpty),
    ],
)
def test_a_rename_refuses_what_rename_refuses(
    source: Entry, target: tuple[NodeKind, bool], error: type[ScopefsError]
) -> None:
    """The usual refusals: over a directory, over a file, over a directory that holds names."""
    with pytest.raises(error):
        plan_rename(source, SCOPE, b"Taken", target)


@pytest.mark.parametrize("source", [FILE_HERE, FOLDER_HERE, EMPTY_FOLDER_HERE])
@pytest.mark.parametrize("target", [(FILE, True), (FOLDER_KIND, True), (FOLDER_KIND, False)])
def test_a_rename_that_may_not_replace_finds_the_name_taken(
    source: Entry, target: tuple[NodeKind, bool]
) -> None:
    """RENAME_NOREPLACE refuses every target, whatever it is."""
    with pytest.raises(NameExists):
        plan_rename(source, SCOPE, b"Taken", target, replace=False)


def test_a_rename_that_may_not_replace_takes_a_free_name() -> None:
    """RENAME_NOREPLACE is an ordinary rename where nothing bears the name."""
    assert plan_rename(FILE_HERE, SCOPE, b"free", None, replace=False) is None
