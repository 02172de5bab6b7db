"""Options from files and the environment: which counts, and mistakes (semantics O1 to O3)."""

from pathlib import Path

import msgspec
import pytest

from scopefs.errors import InvalidConfig
from scopefs.store.config import OPTIONS, Config, load_config, load_settings, user_file


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file."""
    path = tmp_path / "user.toml"
    monkeypatch.setenv("SCOPEFS_CONFIG", str(path))
    return path


@pytest.fixture
def vault_file(tmp_path: Path) -> Path:
    """The vault's file."""
    return tmp_path / "config.toml"


def test_order(user: Path, vault_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, vault's file, user's file, default; each says where it comes from."""
    option = "limits.max_file_bytes"

    def found() -> tuple[object, str]:
        setting = load_settings(vault_file)[option]
        return setting.value, setting.origin

    assert found() == (None, "default")
    user.write_text("[limits]\nmax_file_bytes = 1\n")
    assert found() == (1, str(user))
    vault_file.write_text("[limits]\nmax_file_bytes = 2\n")
    assert found() == (2, str(vault_file))
    monkeypatch.setenv("SCOPEFS_LIMITS_MAX_FILE_BYTES", "3")
    assert found() == (3, "SCOPEFS_LIMITS_MAX_FILE_BYTES")
    assert load_config(vault_file).limits.max_file_bytes == 3
    monkeypatch.setenv("SCOPEFS_LIMITS_MAX_FILE_BYTES", "")
    assert found() == (2, str(vault_file))


def test_each_option_alone(user: Path, vault_file: Path) -> None:
    """A file that sets one key of a table leaves the others to the next."""
    user.write_text("[mount]\ndurability = 'relaxed'\nallow_other = true\n")
    vault_file.write_text("[mount]\nallow_other = false\n")
    config = load_config(vault_file)
    assert (config.mount.durability, config.mount.allow_other) == ("relaxed", False)


def test_no_files_are_the_defaults(user: Path, vault_file: Path) -> None:
    """Missing files and empty ones say nothing."""
    assert load_config(vault_file) == Config()
    vault_file.touch()
    assert load_config(vault_file) == Config()


VARIABLES = {
    "SCOPEFS_MOUNT_ALLOW_OTHER": [("true", True), ("1", True), ("no", False), ("off", False)],
    "SCOPEFS_MOUNT_HTTP_MAX_BODY": [("7", 7)],
    "SCOPEFS_TRASH_KEEP_DAYS": [("1.5", 1.5), ("30", 30.0)],
    "SCOPEFS_SCRATCH_PATTERNS": [("*.a,*.b", ("*.a", "*.b"))],
    "SCOPEFS_MOUNT_HTTP": [("null", "null"), ("127.0.0.1:1", "127.0.0.1:1")],
}


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [(name, text, value) for name, cases in VARIABLES.items() for text, value in cases],
)
def test_variables(
    user: Path, monkeypatch: pytest.MonkeyPatch, variable: str, text: str, value: object
) -> None:
    """Text becomes what the option is."""
    monkeypatch.setenv(variable, text)
    found = [setting for setting in load_settings().values() if setting.origin == variable]
    assert [setting.value for setting in found] == [value]


@pytest.mark.parametrize(("content", "said"), [
    ("[mount]\ndurabilty = 'strict'", ["[mount]", "'durabilty'", "did you mean 'durability'?"]),
    ("[mont]\ndurability = 'strict'", ["unknown key 'mont'", "did you mean 'mount'?"]),
    ("durability = 'strict'", ["unknown key 'durability'", "did you mean 'mount.durability'?"]),
    ("[trash]\nkeep_days = 'x'", ["trash.keep_days", "Expected `float | null`, got `str`"]),
    ("[mount]\ndurability = 'strong'",
     ["mount.durability", "Invalid enum value 'strong'; it may be 'strict' or 'relaxed'"]),
    ("[mount]\nread_check = 1", ["mount.read_check", "Expected `bool`, got `int`"]),
    ("[limits]\nmax_file_bytes = 0", ["limits.max_file_bytes", ">= 1"]),
    ("[limits]\nmax_file_bytes = true", ["limits.max_file_bytes", "got `bool`"]),
    ("[scratch]\npatterns = [1]", ["scratch.patterns", "got `int`"]),
    ("trash = 30", ["trash: must be a table: write [trash]"]),
    ("[trash\n", ["line 1"]),
])  # fmt: skip
def test_what_is_wrong_is_named(
    user: Path, vault_file: Path, content: str, said: list[str]
) -> None:
    """The file, the key, and what was probably meant; in both files alike."""
    for path in (vault_file, user):
        path.write_text(content)
        with pytest.raises(InvalidConfig) as raised:
            load_settings(vault_file)
        for part in (str(path), *said):
            assert part in str(raised.value)
        path.unlink()


def test_a_vault_cannot_say_which_vault(user: Path, vault_file: Path) -> None:
    """`vault` and `mountpoint` are the user's; the message says where they belong."""
    vault_file.write_text("mountpoint = '/mnt/x'\n")
    with pytest.raises(InvalidConfig, match="can stand in the user's file alone") as raised:
        load_settings(vault_file)
    assert str(user) in str(raised.value)
    vault_file.rename(user)
    assert load_settings(vault_file)["mountpoint"].value == "/mnt/x"


def test_a_wrong_variable_is_named(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it says."""
    monkeypatch.setenv("SCOPEFS_LIMITS_MAX_FILE_BYTES", "many")
    with pytest.raises(InvalidConfig, match=r"\$SCOPEFS_LIMITS_MAX_FILE_BYTES=many: Expected"):
        load_settings()


def test_user_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is where the user's configuration is, unless $SCOPEFS_CONFIG names another."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SCOPEFS_CONFIG")
    assert user_file() == tmp_path / "scopefs" / "config.toml"


def test_every_option_has_a_default_of_its_kind() -> None:
    """The table is whole, and no two options have the same variable."""
    for option in OPTIONS.values():
        assert msgspec.convert(option.default, option.type) == option.default
    assert len({option.variable for option in OPTIONS.values()}) == len(OPTIONS)
