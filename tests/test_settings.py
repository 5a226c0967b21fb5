import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hoserkd.errors import ConfigError, UsageError
from hoserkd.settings import (
    Resolved,
    config_json,
    flatten,
    known_keys,
    list_profiles,
    load_profile,
    profile_folders,
    resolve_settings,
    stored_config,
)

SHIPPED = Path(__file__).resolve().parents[1] / "profiles"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def resolved(path: Path | None = None, **given: object) -> Resolved:
    profile = load_profile(str(path), (SHIPPED,)) if path else None
    return resolve_settings(profile, **given)  # type: ignore[arg-type]


def test_default_stands_where_nothing_is_given() -> None:
    settings = resolved()
    assert settings.config.train.epochs == 25
    assert settings.source("train.epochs") == "default"


def test_profile_overrides_default(tmp_path: Path) -> None:
    settings = resolved(written(tmp_path, "mine", "train:\n  epochs: 3\n"))
    assert settings.config.train.epochs == 3
    assert settings.source("train.epochs") == "profile mine (mine.yaml:2)"


def test_environment_overrides_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSERKD_TRAIN__EPOCHS", "4")
    settings = resolved(written(tmp_path, "mine", "train:\n  epochs: 3\n"))
    assert settings.config.train.epochs == 4
    assert settings.source("train.epochs") == "environment HOSERKD_TRAIN__EPOCHS"


def test_command_line_overrides_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSERKD_TRAIN__EPOCHS", "4")
    monkeypatch.setenv("HOSERKD_DEVICE", "cuda")
    settings = resolved(sets=["train.epochs=5"], flags={"device": ("--device", "cpu")})
    assert (settings.config.train.epochs, settings.config.device) == (5, "cpu")
    assert settings.source("train.epochs") == "--set train.epochs"
    assert settings.source("device") == "--device"


def test_run_settings_stand_below_the_profile(tmp_path: Path) -> None:
    base = ("run x", {"train": {"epochs": 7, "batch_size": 8}})
    settings = resolved(written(tmp_path, "mine", "train:\n  epochs: 3\n"), base=base)
    assert (settings.config.train.epochs, settings.config.train.batch_size) == (3, 8)
    assert settings.source("train.batch_size") == "run x"


def test_layers_merge_key_by_key_inside_a_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSERKD_TRAIN__BATCH_SIZE", "8")
    settings = resolved(SHIPPED / "beijing.yaml", sets=["train.epochs=2"])
    assert settings.config.train.batch_size == 8
    assert settings.config.train.epochs == 2
    assert settings.config.train.accumulation == 8


def test_flag_and_set_that_contradict_are_refused() -> None:
    with pytest.raises(UsageError, match="contradict"):
        resolved(sets=["seed=4"], flags={"seed": ("--seed", 3)})


def test_set_reads_yaml_values() -> None:
    config = resolved(sets=["tune.final_seeds=[1, 2]", "train.amp=off", "train.learning_rate=1e-4",
                            "train.max_steps=null", "distill={lambda_kl: 0.5}"]).config
    assert config.tune.final_seeds == (1, 2)
    assert config.train.amp == "off"
    assert config.train.learning_rate == 1e-4
    assert config.train.max_steps is None
    assert config.distill.lambda_kl == 0.5


def test_environment_reads_lists_and_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSERKD_TUNE__FINAL_SEEDS", "[7]")
    monkeypatch.setenv("HOSERKD_TRAIN__MAX_STEPS", "null")
    config = resolved(SHIPPED / "beijing.yaml").config
    assert config.tune.final_seeds == (7,)
    assert config.train.max_steps is None


@pytest.mark.parametrize(("variable", "near"), [
    ("HOSERKD_TRIAN__EPOCHS", "HOSERKD_TRAIN__EPOCHS"),
    ("HOSERKD_TRAIN__EPOCS", "train.epochs"),
    ("HOSERKD_DEVISE", "HOSERKD_DEVICE"),
])
def test_unknown_variable_names_the_nearest(
    variable: str, near: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "3")
    with pytest.raises(ConfigError) as caught:
        resolved()
    assert variable in caught.value.message
    assert near in caught.value.message


def test_all_findings_come_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "bad", "train:\n  epocs: 3\nteacher:\n  n_layers: 2\nfoo: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_profile(str(path), ())
    message = caught.value.message
    assert "bad.yaml:2: no setting is called train.epocs; did you mean train.epochs?" in message
    assert "bad.yaml:4: no setting is called teacher.n_layers; did you mean teacher.n_layer?" in (
        message)
    assert "bad.yaml:5" in message


def test_all_bad_values_come_at_once_with_their_source() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(sets=["train.epochs=0", "distill.temperature=-1", "train.clip=many"])
    assert caught.value.message.count("--set") == 3
    assert "train.epochs" in caught.value.message


def test_rules_between_fields_are_told_by_section() -> None:
    with pytest.raises(ConfigError, match=r"student: road_id_dim \+ 4"):
        resolved(sets=["student.hidden_dim=100"])


@pytest.mark.parametrize(("text", "what"), [
    ("a: 1\na: 2\n", "twice"),
    ("train: !!python/object:os.system x\n", "tags"),
    ("train: &a\n  epochs: 1\n", "anchors"),
    ("- 1\n", "keys and values"),
    ("train: [1\n", "not YAML"),
    ("? [1, 2]\n: 3\n", "a key must be a word"),
])
def test_profile_that_is_not_plain_yaml_is_refused(text: str, what: str, tmp_path: Path) -> None:
    path = written(tmp_path, "odd", text)
    with pytest.raises(ConfigError, match=what):
        load_profile(str(path), ())


def test_yaml_words_stay_words(tmp_path: Path) -> None:
    path = written(tmp_path, "words", "train:\n  amp: off\n  learning_rate: 2e-3\n")
    config = resolved(path).config
    assert (config.train.amp, config.train.learning_rate) == ("off", 2e-3)


def test_profile_extends_another_by_name_and_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    path = written(tmp_path, "mine", "extends: porto\ntrain:\n  epochs: 1\n")
    profile = load_profile(str(path), (SHIPPED,))
    settings = resolve_settings(profile)
    assert profile.extends == ("porto", "beijing")
    assert settings.config.city.name == "porto"
    assert settings.config.train.epochs == 1
    assert settings.config.train.accumulation == 8
    assert settings.source("train.accumulation").startswith("profile beijing (beijing.yaml:")


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "a", "extends: b\n")
    written(tmp_path, "b", "extends: a\n")
    with pytest.raises(ConfigError, match="circle"):
        load_profile("a", (tmp_path,))


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'beijing'"):
        load_profile("bejing", (SHIPPED,))


def test_own_profile_hides_a_shipped_one(home: Path) -> None:
    (home / "profiles").mkdir()
    own = written(home / "profiles", "demo", "seed: 9\n")
    folders = profile_folders(home)
    assert list_profiles(folders)["demo"] == own
    assert "beijing" in list_profiles(folders)


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_profile_loads_and_says_what_it_is(path: Path) -> None:
    profile = load_profile(str(path), (SHIPPED,))
    assert profile.description
    assert resolve_settings(profile).config.city.name == path.stem


def test_beijing_holds_the_published_settings() -> None:
    config = resolved(SHIPPED / "beijing.yaml").config
    train, distill, tune = config.train, config.distill, config.tune
    assert (train.epochs, train.batch_size, train.accumulation) == (25, 64, 8)
    assert (train.learning_rate, train.weight_decay) == (1e-3, 0.1)
    assert (train.warmup_share, train.clip, config.data.candidate_top_k) == (0.1, 1.0, 64)
    assert (distill.lambda_kl, distill.temperature, distill.window) == (0.029, 3.4, 4)
    assert (tune.lambda_kl, tune.temperature, tune.window) == ((0.001, 0.1), (1.0, 5.0), (2, 8))
    assert (tune.sampler, tune.min_resource, tune.reduction_factor) == ("cmaes", 5, 3)
    assert (tune.epochs, tune.final_epochs, tune.final_seeds) == (8, 25, (42, 43, 44))
    teacher = config.teacher
    assert (teacher.n_layer, teacher.n_head, teacher.n_embd) == (8, 12, 768)


def test_a_setting_that_holds_names_takes_any_name() -> None:
    settings = resolved(sets=["evaluate.scenario.hours.night=[[22, 24]]"])
    assert settings.config.evaluate.scenario.hours == {"night": ((22.0, 24.0),)}
    assert settings.source("evaluate.scenario.hours") == "--set evaluate.scenario.hours.night"


def test_every_setting_is_shown_once_with_its_source() -> None:
    settings = resolved(SHIPPED / "demo.yaml").settings()
    assert [s.key for s in settings] == list(known_keys())
    assert set(flatten(resolved().config.model_dump(mode="json"))) == set(known_keys())


def test_stored_settings_come_back_the_same() -> None:
    config = resolved(SHIPPED / "porto.yaml").config
    assert stored_config(config_json(config), "run x") == config


def test_stored_settings_of_another_version_are_refused() -> None:
    with pytest.raises(ConfigError, match="run x"):
        stored_config('{"train": {"epocs": 3}}', "run x")


def test_settings_page_shows_commands_and_a_profile_that_work(
    run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    text = (SHIPPED.parent / "docs" / "settings.md").read_text("utf-8")
    blocks = dict(re.findall(r"^```(sh|yaml)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for line in blocks["sh"].splitlines():
        assert run_cli(*line.split()[1:]).exit_code == 0, line
    config = resolved(written(tmp_path, "mine", blocks["yaml"])).config
    assert (config.train.epochs, config.distill.temperature, config.city.name) == (
        12, 4.0, "beijing")


def test_own_profiles_lie_in_the_settings_folder_unless_a_home_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = tmp_path / "hoserkd" / "profiles"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("train:\n  epochs: 3\n", encoding="utf-8")
    assert "mine" not in list_profiles(profile_folders(home))
    monkeypatch.delenv("HOSERKD_HOME")
    assert list_profiles(profile_folders(home))["mine"] == own / "mine.yaml"
    assert "demo" in list_profiles(profile_folders(home))
