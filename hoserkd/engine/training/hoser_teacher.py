"""Another HOSER as the teacher: the same candidates, no grid."""

from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from hoserkd.engine.city.storage import City
from hoserkd.engine.config import StudentConfig
from hoserkd.engine.identity import Identity, student_identity
from hoserkd.engine.student.storage import LoadedStudent, load_student
from hoserkd.engine.student.tables import build_network_tables
from hoserkd.engine.teacher.signal import TeacherSource
from hoserkd.engine.training.losses import segment_ids
from hoserkd.engine.types import StepBatch, TeacherSignal
from hoserkd.errors import TeacherError


class HoserTeacher:
    """Answers with the logits of a trained student, asked at every batch."""

    @torch.no_grad()
    def __init__(
        self, student: LoadedStudent, city: City, device: torch.device, identity: Identity
    ) -> None:
        """Encode the road network once."""
        self.identity, self.form = identity, "online"
        self.features = student.meta.config.features
        tables = build_network_tables(city.network, self.features, device)
        self._model = student.model.to(device).eval().requires_grad_(False)
        self._encoding = self._model.encode_network(tables)

    @torch.no_grad()
    def signal(self, batch: StepBatch, step: Int[Tensor, " Q"]) -> TeacherSignal:
        """Return its logits for the kept candidates of the batch's steps `step`."""
        # A teacher gives the same answer whatever precision the student trains in.
        with torch.autocast(batch.road.device.type, enabled=False):
            logits = self._model.forward_encoded(self._encoding, batch).logits
        first = batch.candidate_offset[step]
        count = batch.candidate_offset[step + 1] - first
        offset = torch.nn.functional.pad(count.cumsum(0), (1, 0))
        if len(step) == batch.steps:
            return TeacherSignal(step, offset, logits, None)
        total = int(offset[-1])
        segment = segment_ids(offset, total)
        index = torch.arange(total, device=step.device) + (first - offset[:-1])[segment]
        return TeacherSignal(step, offset, logits[index], None)


def check_features(teacher: TeacherSource, student: StudentConfig) -> None:
    """Check that a teacher which reads the student's batches reads their features rightly.

    Raises:
        TeacherError: it is a HOSER that follows another feature convention than the student.
    """
    if isinstance(teacher, HoserTeacher) and teacher.features != student.features:
        raise TeacherError(
            f"{teacher.identity.place}: the teacher's features are {teacher.features}, the "
            f"student's {student.features}", hint=f"set student.features={teacher.features}")


def load_hoser_teacher(
    path: Path, city: City, student: StudentConfig, device: torch.device,
    name: str | None = None,
) -> tuple[HoserTeacher, str | None]:
    """Return the teacher in a student file, and a warning if there is cause for one.

    Args:
        name: What people call it; None: as its file.

    Raises:
        TeacherError: it follows another feature convention than the student.
        CheckpointError: the file is damaged or of another city.
    """
    loaded = load_student(path, city)
    theirs = loaded.meta.config
    teacher = HoserTeacher(loaded, city, device, student_identity(loaded, path, name))
    check_features(teacher, student)
    shape = ("hidden_dim", "road_id_dim", "attribute_dim", "heads", "layers")
    same = all(getattr(theirs, name) == getattr(student, name) for name in shape)
    warning = (f"{path}: the teacher has the student's own architecture; expect little from it"
               if same else None)
    return teacher, warning
