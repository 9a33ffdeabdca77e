"""What `backstay repo` makes of its options, environment and patterns, without a repository."""

from __future__ import annotations

import io
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from backstay.cli.main import main
from backstay.cli.repo import environment, exit_codes
from backstay.cli.repo.choose import Filter, make_filter
from backstay.cli.repo.environment import InvalidSetting, Settings
from backstay.cli.repo.exclusion import Exclusion
from backstay.cli.repo.forget import local_zone
from backstay.cli.repo.output import Output, duration, size, table
from backstay.cli.repo.restore import Selection
from backstay.cli.repo.snapshots import grouping
from backstay.cli.repo.verb import Duration, Moment, Size
from backstay.repository import errors
from backstay.repository.format.snapshot import Snapshot
from backstay.repository.outcome import Progress

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def settings(variables: dict[str, str] | None = None, **options: object) -> Settings:
    return Settings(environment=variables or {}, **options)  # type: ignore[arg-type]


# --- environment -----------------------------------------------------------------------------------------------------


def test_an_option_counts_more_than_the_environment() -> None:
    variables = {"RESTIC_REPOSITORY": "/from/environment"}

    assert environment.url(settings(variables)) == "/from/environment"
    assert environment.url(settings(variables, repo="/from/option")) == "/from/option"


def test_the_repository_and_the_password_may_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "where").write_text("s3:https://host/bucket/prefix\n")
    (tmp_path / "secret").write_text(" keeps its spaces \r\n")
    variables = {"RESTIC_REPOSITORY_FILE": str(tmp_path / "where"), "RESTIC_PASSWORD_FILE": str(tmp_path / "secret")}

    assert environment.url(settings(variables)) == "s3:https://host/bucket/prefix"
    assert environment.password(settings(variables)) == " keeps its spaces "


def test_a_command_may_print_the_password() -> None:
    assert environment.password(settings({"RESTIC_PASSWORD_COMMAND": "echo 'a secret'"})) == "a secret"
    with pytest.raises(errors.WrongPassword, match="correct the command"):
        environment.password(settings({"RESTIC_PASSWORD_COMMAND": "false"}))


def test_the_repository_that_is_copied_from_has_variables_of_its_own() -> None:
    variables = {"RESTIC_REPOSITORY": "/to", "RESTIC_PASSWORD": "to", "RESTIC_FROM_REPOSITORY": "/from"}
    source = settings({**variables, "RESTIC_FROM_PASSWORD": "from"}, prefix="FROM")

    assert (environment.url(source), environment.password(source)) == ("/from", "from")
    with pytest.raises(InvalidSetting, match="--from-repo"):
        environment.url(settings(prefix="FROM"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extended": ("s3.nothing=1",)}, "s3.nothing"),
        ({"extended": ("s3.connections=0",)}, "1 to 256"),
        ({"extended": ("s3.bucket-lookup=maybe",)}, "auto, dns or path"),
        ({"object_lock": "forever"}, "governance:30"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        environment.open_store(settings({}, repo="s3:http://127.0.0.1:1/bucket", **options))


def test_a_directory_has_neither_a_past_nor_object_lock(tmp_path: Path) -> None:
    for options in ({"as_of": NOON}, {"object_lock": "governance:1"}):
        with pytest.raises(InvalidSetting):
            environment.open_store(settings({}, repo=str(tmp_path), **options))


# --- values ----------------------------------------------------------------------------------------------------------


def test_time_spans_sizes_and_moments_are_read_as_restic_reads_them() -> None:
    assert Duration().convert("1h30m", None, None) == 5400
    assert Size().convert("2M", None, None) == 2 << 20
    assert Moment().convert("2026-11-24T12:00:00Z", None, None) == NOON
    for kind, text in ((Duration(), "soon"), (Duration(), "5"), (Size(), "-1"), (Size(), "much"), (Moment(), "noon")):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


def test_groups_are_words_or_refused() -> None:
    assert grouping("host,path,tags") == ("host", "paths", "tags")
    assert grouping("") == ()
    with pytest.raises(InvalidSetting, match="colour"):
        grouping("colour")


def test_the_machines_time_zone_has_its_daylight_saving() -> None:
    zone = local_zone({"TZ": "Europe/Berlin"})

    assert datetime(2026, 7, 1, tzinfo=zone).utcoffset() != datetime(2026, 12, 1, tzinfo=zone).utcoffset()
    assert local_zone({"TZ": "No/Where"}) is UTC


# --- choosing --------------------------------------------------------------------------------------------------------


def snapshot(**members: object) -> Snapshot:
    return Snapshot(time=NOON, tree="0" * 64, **{"paths": ("/a", "/b"), "hostname": "one", **members})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hosts", "tags", "paths", "matches"),
    [
        ([], [], [], True),
        (["one", "two"], [], [], True),
        (["two"], [], [], False),
        ([], ["x,y"], [], True),
        ([], ["x,z", "y"], [], True),
        ([], ["x,z"], [], False),
        ([], [""], [], False),
        ([], [], ["/a"], True),
        ([], [], ["/a", "/c"], False),
    ],
)
def test_a_filter_takes_any_host_any_list_of_tags_and_all_paths(
    hosts: list[str], tags: list[str], paths: list[str], matches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESTIC_HOST", raising=False)

    assert make_filter(hosts, tags, paths).matches(snapshot(tags=("x", "y"))) is matches


def test_the_empty_tag_means_no_tags() -> None:
    assert Filter(tags=(("",),)).matches(snapshot())


def test_an_exclusion_goes_to_other_processes_and_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    exclusion = Exclusion(("*.tmp",), ("*.BAK",), caches=True)
    exclusion.prove()

    sent = pickle.loads(pickle.dumps(exclusion))

    for path, left_out in ((b"/a/b.tmp", True), (b"/a/c.bak", True), (b"/a/b.txt", False)):
        assert exclusion(path, False) is sent(path, False) is left_out
    assert sent(bytes(tmp_path / "junk"), False)
    assert not sent(bytes(tmp_path / "CACHEDIR.TAG"), False)


def test_a_restore_takes_what_is_included_and_looks_only_where_that_can_be() -> None:
    selection = Selection.parse(("/srv/shop/*.txt",), (), (), ())

    assert (
        selection.choose(b"/srv/shop/a.txt", False) == (True, False) or selection.choose(b"/srv/shop/a.txt", False).take
    )
    assert selection.choose(b"/srv", True) == (False, True)
    assert selection.choose(b"/etc", True) == (False, False)
    with pytest.raises(InvalidSetting, match="not both"):
        Selection.parse(("a",), (), ("b",), ())


# --- saying ----------------------------------------------------------------------------------------------------------


def test_errors_become_restics_exit_codes() -> None:
    assert exit_codes.of(errors.RepositoryNotFound("")) == 10
    assert exit_codes.of(errors.RepositoryLocked("")) == 11
    assert exit_codes.of(errors.WrongPassword("")) == 12
    assert exit_codes.of(errors.Corrupted("")) == 1


def test_a_failure_is_one_line_whatever_the_error_says() -> None:
    out, err = io.StringIO(), io.StringIO()

    Output(out=out, err=err).failure(1, "reading\n  x: gone")
    Output(json=True, out=out, err=err).failure(11, "locked")

    first, second = err.getvalue().splitlines()
    assert first == "Error: reading x: gone"
    assert json.loads(second) == {"message_type": "exit_error", "code": 11, "message": "locked"}
    assert not out.getvalue()


def test_names_that_are_no_text_are_shown_somehow() -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    output = Output(out=out, err=io.StringIO())

    output.say("caf\udce9")
    out.flush()

    assert out.buffer.getvalue() == "caf\ufffd\n".encode()  # type: ignore[attr-defined]


def test_no_bar_is_drawn_where_nobody_looks() -> None:
    err = io.StringIO()

    with Output(err=err).progress("backup") as tell:
        tell(Progress(1, 1))

    assert not err.getvalue()


def test_amounts_are_shown_as_restic_shows_them() -> None:
    assert [size(number) for number in (0, 1023, 1536, 3_000_000)] == ["0 B", "1023 B", "1.500 KiB", "2.861 MiB"]
    assert [duration(seconds) for seconds in (0.9, 61, 3661)] == ["0:00", "1:01", "1:01:01"]


def test_a_table_has_cells_of_several_lines() -> None:
    assert table(["A", "B"], [["1", "x\ny"]]) == ["A  B", "----", "1  x", "   y", "----"]


def test_every_command_has_help_that_begins_with_a_sentence() -> None:
    context = click.Context(main)
    repo = main.get_command(context, "repo")
    assert isinstance(repo, click.Group)
    for name in repo.list_commands(context):
        command = repo.get_command(context, name)
        assert command is not None
        assert command.help, name
        assert command.help.split("\n")[0][0].isupper(), name
        assert name == command.name
