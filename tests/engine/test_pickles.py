import argparse
import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from hoserkd.engine.teacher.pickles import Record, TensorRef, read_archive
from hoserkd.errors import TeacherError

DATA = Path(__file__).parents[1] / "data" / "lmtad"


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def as_zip(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("ckpt/data.pkl", content)
        archive.writestr("ckpt/version", "3")
    return path


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def test_public_checkpoint_is_read_without_its_classes():
    archive = read_archive(DATA / "compiled" / "ckpt.pt")
    config = archive.root["model_config"]
    assert isinstance(config, Record)
    assert config.name == "models.LMTAD.LMTADConfig"
    assert config.get("n_embd") == 16
    assert config.get("integer_poe") is False
    dataset = archive.root["dataset_config"]
    assert dataset.get("grip_size") == (7, 10)
    assert dataset.get("block_size") == 40
    assert archive.root["args"].get("device") == "cuda:0"


def test_tensors_come_out_as_torch_saved_them(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=generator)
    tensors = {"plain": base, "view": base[1:5, 1:3], "turned": base.T, "half": base.half(),
               "brain": base.bfloat16(), "number": torch.tensor(7), "empty": torch.empty(0, 3),
               "bool": base > 0, "parameter": torch.nn.Parameter(base)}
    archive = read_archive(saved(tmp_path / "t.pt", {"model": collections.OrderedDict(tensors)}))
    for name, tensor in tensors.items():
        found = archive.tensor(archive.root["model"][name])
        assert found.dtype == tensor.dtype, name
        assert torch.equal(found, tensor.detach()), name


def test_plain_values_come_out_as_they_were(tmp_path):
    values = {"a": [1, 2.5, None, True, "x", (1, 2)], "b": {"c": b"xyz"}, "s": {1, 2},
              "i": np.int64(40), "f": np.float32(0.5), "n": np.bool_(True),
              "d": torch.device("cpu"), "z": torch.Size([2, 3]), "t": torch.float32}
    found = read_archive(saved(tmp_path / "v.pt", values)).root
    assert {k: found[k] for k in "absifnzt"} == {
        **{k: values[k] for k in "abs"}, "i": 40, "f": 0.5, "n": True, "z": (2, 3),
        "t": torch.float32}
    assert found["d"] == "cpu"


def test_namespace_of_a_real_pickle_is_a_record(tmp_path):
    path = saved(tmp_path / "n.pt", {"args": argparse.Namespace(seed=3, out=Path("x") / "y")})
    args = read_archive(path).root["args"]
    assert args.get("seed") == 3
    assert args.get("out").arguments == ("x", "y")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("make", [
    lambda flag: Evil(os.system, f"touch {flag}"),
    lambda flag: {"model": {"deep": [(Evil(eval, f"open({str(flag)!r}, 'w')"),)]}},
    lambda flag: {"model": Evil(exec, f"open({str(flag)!r}, 'w')")},
    lambda flag: collections.OrderedDict(x=Evil(open, str(flag), "w")),
    lambda flag: Evil(getattr, flag, "touch"),
    lambda flag: Evil(pickle.loads, pickle.dumps(Evil(os.system, f"touch {flag}"))),
    lambda flag: Evil(torch.load, str(flag)),
], ids=["system", "nested eval", "exec", "open", "getattr", "loads", "torch.load"])
def test_malicious_pickle_is_refused_and_not_run(make, protocol, tmp_path):
    flag = tmp_path / "ran"
    bare = as_zip(tmp_path / "bare.pt", pickle.dumps(make(flag), protocol=protocol))
    torch_made = tmp_path / "torch.pt"
    torch.save(make(flag), torch_made, pickle_protocol=protocol)
    for path in (bare, torch_made):
        with pytest.raises(TeacherError, match=r"refused|damaged") as caught:
            read_archive(path)
        assert caught.value.message.startswith(str(path))
    assert not flag.exists()


@pytest.mark.parametrize("content", [
    b"cos\nsystem\n(S'touch ran'\ntR.",
    b"(S'touch ran'\nios\nsystem\n.",
    b"(cos\nsystem\nS'touch ran'\no.",
    b"\x82\x01.",
    b"c__builtin__\neval\n(S'1'\ntR.",
    b"cposix\nsystem\n(S'touch ran'\ntR.",
    b"cnumpy\nload\n(S'x'\ntR.",
    b"ctorch.serialization\nload\n(S'x'\ntR.",
    b"cmodels\n__import__('os').system\n(tR.",
    b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\nI0\n(I1\nt(I1\ntI00\nNtR.",
], ids=["GLOBAL", "INST", "OBJ", "EXT", "eval", "posix", "numpy.load", "torch.load", "expression",
        "inside a tensor"])
def test_handwritten_pickle_is_refused(content, tmp_path):
    with pytest.raises(TeacherError, match="refused"):
        read_archive(as_zip(tmp_path / "h.pt", content))


def test_state_cannot_change_the_readers_own_functions(tmp_path):
    target = b"ctorch._utils\n_rebuild_tensor_v2\n"
    for state in (b"}S'_call'\ncargparse\nNamespace\nsb.", b"(N}S'__call__'\nI1\nstb."):
        with pytest.raises(TeacherError):
            read_archive(as_zip(tmp_path / "b.pt", target + state))
    assert read_archive(DATA / "plain" / "ckpt.pt").root["iter_num"] == 17


def test_state_that_would_move_a_tensor_is_refused(tmp_path):
    head = (b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'0'\n"
            b"S'cpu'\nI4\ntQI0\n(I4\nt(I1\ntI00\nNtR")
    with pytest.raises(TeacherError, match="description"):
        read_archive(as_zip(tmp_path / "m.pt", head + b"}S'offset'\nI-9\nsb."))
    assert isinstance(read_archive(as_zip(tmp_path / "ok.pt", head + b".")).root, TensorRef)


def test_setstate_of_a_foreign_class_is_only_kept(tmp_path):
    content = b"cmodels.LMTAD\nConfig\n(tR}S'__setstate__'\nS'x'\nsb}S'a'\nI1\nsb."
    record = read_archive(as_zip(tmp_path / "s.pt", content)).root
    assert record.state == {"__setstate__": "x", "a": 1}


def test_huge_memo_index_is_refused_before_memory_is_asked_for(tmp_path):
    with pytest.raises(TeacherError, match="memo"):
        read_archive(as_zip(tmp_path / "p.pt", b"Nr\xff\xff\xff\x7f."))


def doubled(times: int, inner: bytes = b")", pair: bytes = b"\x86") -> bytes:
    """Return the instructions that make a pair of itself, again and again."""
    return inner + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + pair for i in range(times))


@pytest.mark.parametrize("content", [
    doubled(60) + b".",
    b"}" + doubled(60) + b"K\x01s.",
    b"cbuiltins\nset\n(" + doubled(60) + b"etR.",
    b"ctorch\ndevice\n(" + doubled(60) + b"tR.",
    b"cmodels\nA\n)R}" + doubled(60) + b"K\x01sb.",
    b"(" + doubled(20) + b"h\x13" * 40 + b"d.",
], ids=["tuple", "key", "set", "device", "attribute", "many keys"])
def test_values_inside_of_values_are_refused_before_they_cost(content, tmp_path):
    with pytest.raises(TeacherError, match=r"values inside of values|device|damaged"):
        read_archive(as_zip(tmp_path / "d.pt", content))


def test_lists_inside_of_lists_are_not_written_out_in_messages(tmp_path):
    deep = b"]" + b"".join(
        b"q" + bytes([i]) + b"0](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60))
    for holder in (b"ctorch\ndevice\n(" + deep + b"tR.", b"(" + deep + b"Q."):
        with pytest.raises(TeacherError) as caught:
            read_archive(as_zip(tmp_path / "l.pt", holder))
        assert len(caught.value.message) < 1000


@pytest.mark.parametrize("number", [1 << 64, -(1 << 64), 7 ** 4000])
def test_numbers_beyond_64_bits_are_refused(number, tmp_path):
    with pytest.raises(TeacherError, match="bits"):
        read_archive(as_zip(tmp_path / "n.pt", pickle.dumps({"n": number}, protocol=2)))
    kept = {"n": [2**63 - 1, -(2**63)]}
    assert read_archive(as_zip(tmp_path / "k.pt", pickle.dumps(kept))).root == kept


def test_a_checkpoint_that_unfolds_one_tensor_many_times_is_refused(tmp_path):
    weight = torch.zeros(4000)
    torch.save({f"w{i}": weight for i in range(9)}, tmp_path / "many.pt")
    archive = read_archive(tmp_path / "many.pt")
    with pytest.raises(TeacherError, match="144,000 bytes, but the file has"):
        archive.tensors(archive.root)
    torch.save({"w": torch.zeros(1).expand(1 << 40)}, tmp_path / "wide.pt")
    archive = read_archive(tmp_path / "wide.pt")
    with pytest.raises(TeacherError, match="repeats them"):
        archive.tensor(archive.root["w"])


def test_tensor_larger_than_its_storage_is_refused(tmp_path):
    torch.save({"model": {"w": torch.zeros(4)}}, tmp_path / "t.pt")
    archive = read_archive(tmp_path / "t.pt")
    reference = archive.root["model"]["w"]
    for shape, stride, offset in [((5,), (1,), 0), ((4,), (9,), 0), ((4,), (1,), 1)]:
        wrong = TensorRef(reference.storage, offset, shape, stride)
        with pytest.raises(TeacherError, match="16 bytes"):
            archive.tensor(wrong)


def test_files_that_are_no_torch_checkpoint_are_named(tmp_path):
    text = tmp_path / "text.pt"
    text.write_text("hello")
    bare = tmp_path / "bare.pkl"
    bare.write_bytes(pickle.dumps(Evil(os.system, "touch ran")))
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", "x")
    for path in (text, bare, other):
        with pytest.raises(TeacherError, match="no torch checkpoint"):
            read_archive(path)
    with pytest.raises(TeacherError, match="no such file"):
        read_archive(tmp_path / "missing.pt")


def test_compressed_pickle_is_refused(tmp_path):
    bomb = as_zip(tmp_path / "z.pt", b"\x00" * 1000, zipfile.ZIP_DEFLATED)
    with pytest.raises(TeacherError, match="compressed"):
        read_archive(bomb)


@pytest.mark.parametrize("cut", [0, 1, 40, 400])
def test_truncated_pickle_is_a_clear_error(cut, tmp_path):
    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.zeros(3)}, "n": list(range(50))}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        content = archive.read("archive/data.pkl")
    with pytest.raises(TeacherError):
        read_archive(as_zip(tmp_path / "c.pt", content[:min(cut, len(content) - 1)]))
