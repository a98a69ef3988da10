"""The course of a sweep's jobs where a script says what befalls them."""

from cnnlab.compose import Composer
from cnnlab.folder import RunFolder
from cnnlab.result import Result
from cnnlab.sweep.job import Job
from cnnlab.sweep.loop import see_through


class Remote:
    """A job far away, of which the folder alone tells; it opens that at one look and ends at the next."""

    end = said = ""

    def __init__(self, job: Job) -> None:
        self.job, self.looks = job, 0
        self.answer: Result | None = None

    def step(self) -> None:
        self.looks += 1
        if self.looks == 2:
            with RunFolder(self.job.config):
                Result.of(self.job.config, status="running").write(self.job.folder)

    def ended(self) -> bool:
        if self.looks == 3:
            self.answer = Result.of(self.job.config, status="done")
        return self.looks == 3


class Elsewhere:
    """Takes all jobs at once."""

    def start(self, waiting):
        while waiting:
            yield Remote(waiting.popleft())

    def wait(self, running):
        for entry in running:
            entry.step()


def test_a_job_elsewhere_is_pending_till_its_folder_is_opened_and_then_running(tmp_path):
    job = Job(Composer().one(["logger=none", f"output_dir={tmp_path}"]))
    states = []
    see_through([job], Elsewhere(), lambda: states.append(job.state))
    assert states == ["pending", "pending", "running", "done"]
    assert job.result is not None and job.result.status == "done"
