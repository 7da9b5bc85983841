"""The processes of one run: each has a device and its share of every batch, and all learn the same network.

The main process, the first one, logs and writes. What it alone can do, it does for all (`ProcessGroup.run_on_main`);
what may fail in one of them ends all of them with one message (`ProcessGroup.run_on_all`).
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from cpfnet.errors import CpfnetError, TrainingError
from cpfnet.training.signals import Stopped

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long processes wait for each other, as long as they live: the others stand by while the main one prepares cases
or fits, and that may take hours.

One that ends is noticed at once, one that is gone without a word within minutes (`heartbeat`).
"""

MEETING = timedelta(minutes=10)
"""How long they wait for each other to start."""


class WorkerLost(TrainingError):
    """Another process of the run ended."""


@dataclass(frozen=True)
class ProcessGroup:
    """One process among those of its run; by default it is alone.

    Attributes:
        rank, size: which of how many it is.
        local_rank, local_size: the same among those on this machine.
        flag: where the process that started them all says that they should stop (``value``); None: signals say it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    flag: Any = None

    @property
    def is_main_process(self) -> bool:
        """Whether it logs and writes for all."""
        return self.rank == 0

    def gather(self, own: T) -> list[T]:
        """What each of them has, in every process."""
        if self.size == 1:
            return [own]
        import torch.distributed

        everything: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everything, own)
        return everything

    def any(self, own: bool) -> bool:
        """Whether it is so in one of them."""
        if self.size == 1:
            return own
        import torch

        some = torch.tensor(int(own))
        torch.distributed.all_reduce(some, torch.distributed.ReduceOp.MAX)
        return bool(some)

    def run_on_all(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in this process, once it gave something in all of them.

        Raises:
            CpfnetError, Stopped: in one of them; then all end with it.
            SystemExit: likewise, and the main process says why.
        """
        if self.size == 1:
            return make()
        made, own = None, None
        try:
            made = make()
        except (CpfnetError, Stopped) as error:
            own = error
        failed = [error for error in self.gather(own) if error is not None]
        if failed:
            if self.is_main_process or isinstance(failed[0], Stopped):
                raise failed[0]
            self.leave()
        return made  # type: ignore[return-value]

    def run_on_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the main process, in every process; it runs there alone.

        Raises:
            CpfnetError, Stopped, SystemExit: as for `run_on_all`.
        """
        made = [self.run_on_all(lambda: make() if self.is_main_process else None)]
        if self.size > 1:
            import torch.distributed

            torch.distributed.broadcast_object_list(made)
        return made[0]  # type: ignore[return-value]

    def device(self, name: str) -> torch.device:
        """This process' own, of the kind that is called so; also where its GPU collectives work.

        Raises:
            NetworkError: no such device.
            TrainingError: PyTorch has no kernels for it.
        """
        import torch

        from cpfnet.inference.torch_backend.network import pick_device
        from cpfnet.training.hardware.kernels import check_kernels

        chosen = pick_device(name)
        if self.size > 1 and chosen.type != "cpu":
            torch.cuda.set_device(self.local_rank)
            chosen = torch.device(chosen.type, self.local_rank)
        check_kernels(chosen)
        return chosen

    def leave(self) -> None:
        """End this process with the main one, which says what is wrong.

        torchrun ends all of them as soon as one has ended.

        Raises:
            SystemExit: always.
        """
        import torch.distributed

        with suppress(RuntimeError):
            torch.distributed.barrier()
        raise SystemExit(1)


SINGLE_PROCESS = ProcessGroup()


def find_group(devices: int, nodes: int) -> ProcessGroup:
    """This process' place where torchrun or SLURM started all of them; `SINGLE_PROCESS` where nobody did.

    Args:
        devices, nodes: as in `TrainOptions`.

    Raises:
        TrainingError: what is asked for is not what was started, or there is no way to the other machines.
    """
    asked = f"--devices {devices} --nodes {nodes}"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        rank, size, local_rank, local_size = (
            int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
        if (devices, nodes) not in ((1, 1), (local_size, size // local_size)):
            raise TrainingError(
                f"torchrun started {size} processes, {local_size} of them here; {asked} asks for {devices * nodes}",
                fix="leave out --devices and --nodes: torchrun's --nproc-per-node and --nnodes say it",
            )
        return ProcessGroup(rank, size, local_rank, local_size)
    # srun's; a batch script, or one task, starts its own processes.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if devices * nodes > 1 and tasks > 1:
        return _slurm(devices, nodes, tasks)
    if nodes > 1:
        raise TrainingError(
            f"{asked}: nothing says which of the {nodes} machines this is, and where the others are",
            fix=f"start it on each machine by torchrun, or by srun --nodes={nodes} --ntasks-per-node={devices}",
        )
    if devices > 1 and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise TrainingError(
            "with several devices every process runs the script that calls this, and each would start others",
            fix='put what the script does under `if __name__ == "__main__":`',
        )
    return SINGLE_PROCESS


def _slurm(devices: int, nodes: int, tasks: int) -> ProcessGroup:
    from lightning_fabric.plugins.environments import SLURMEnvironment

    machines = int(os.environ["SLURM_STEP_NUM_NODES"])
    if (tasks, machines) != (devices * nodes, nodes):
        raise TrainingError(
            f"srun started {tasks} tasks on {machines} machines; --devices {devices} --nodes {nodes} asks for "
            f"{devices * nodes} on {nodes}",
            fix=f"start it by srun --nodes={nodes} --ntasks-per-node={devices}",
        )
    try:
        slurm = SLURMEnvironment()
    except RuntimeError:
        raise TrainingError(
            f"SLURM does not say how many of the {tasks} tasks run on each machine",
            fix=f"start it by srun --nodes={nodes} --ntasks-per-node={devices}",
        ) from None
    group = ProcessGroup(slurm.global_rank(), tasks, slurm.local_rank(), devices)
    announce(group, slurm.main_address, slurm.main_port)
    os.environ["GROUP_RANK"] = str(slurm.node_rank())
    return group


def announce(group: ProcessGroup, address: str, port: int) -> None:
    """Say by environment variables, as torchrun does, which process this is and where they all meet."""
    os.environ |= {
        "RANK": str(group.rank),
        "WORLD_SIZE": str(group.size),
        "LOCAL_RANK": str(group.local_rank),
        "LOCAL_WORLD_SIZE": str(group.local_size),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }


def check_devices(device: str, count: int) -> str:
    """The kind of device on which ``count`` processes of this machine train.

    Raises:
        TrainingError: one certain GPU is asked for, or there are not so many.
        NetworkError: no such device.
    """
    import torch

    from cpfnet.inference.torch_backend.network import pick_device

    chosen = pick_device(device)
    if chosen.index is not None:
        raise TrainingError(
            f"--device {device} is one device, --devices {count} are several",
            fix="give --device cuda; CUDA_VISIBLE_DEVICES chooses among GPUs",
        )
    there = torch.cuda.device_count()
    if chosen.type == "cuda" and there < count:
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(there))
        raise TrainingError(
            f"{count} devices are asked for, and {there} GPU{'s' * (there != 1)} found ({names})",
            fix=f"give --devices {there}, or more GPUs to each machine (under SLURM --gpus-per-node={count}); "
            "--device cpu takes any number of processes",
        )
    return chosen.type


def backend(kind: str, platform: str = sys.platform) -> str:
    """Who carries what: between GPUs NCCL, which Windows has not got; all else gloo.

    Args:
        kind: of device, as `check_devices` gives it.
        platform: as `sys.platform`.
    """
    return "cpu:gloo,cuda:nccl" if kind == "cuda" and platform != "win32" else "gloo"


@contextmanager
def joined(
    group: ProcessGroup, device: str, tell: Callable[[WorkerLost], None] = lambda lost: logger.critical("%s", lost)
) -> Iterator[None]:
    """Meet the others, work, and part.

    Where another process is gone without a word, this one is ended, since nothing wakes a thread that waits for it.

    Args:
        group: as `find_group` gives it, or announced.
        device: as in `TrainOptions`.
        tell: called with what is wrong before that, in the first of the processes that are left.

    Raises:
        WorkerLost: another process ended, or never came.
    """
    if group.size == 1:
        yield
        return
    import torch.distributed

    # Its functions' defaults are the group of the moment. DDP imports it once there is one, which then outlives its
    # end, with threads that may need the interpreter when that is gone: now and then a process ended in SIGABRT, its
    # work done.
    import torch.distributed.nn.functional
    from torch.distributed.rendezvous import rendezvous

    from cpfnet.training.distributed.heartbeat import watched

    carrier = backend(check_devices(device, group.local_size))

    def give_up(gone: Sequence[int]) -> None:
        if group.rank == min(set(range(group.size)) - {*gone}):
            tell(_silent(gone, group))
        os._exit(1)

    lost = False
    try:
        store = next(rendezvous("env://", timeout=MEETING))[0]
        with watched(store, group.rank, group.size, give_up), _one_voice(group):
            torch.distributed.init_process_group(
                carrier, store=store, rank=group.rank, world_size=group.size, timeout=PATIENCE
            )
            yield
    except RuntimeError as error:
        lost = _lost(error)
        if not lost:
            raise
        raise WorkerLost(
            f"another process of this run ended, or never came (noticed by process {group.rank} of {group.size})",
            fix="its own message, or its launcher's, tells why; the same command with --resume goes on from the last "
            "checkpoint",
        ) from None
    finally:
        if not lost and torch.distributed.is_initialized():
            # What was trained holds on to the group in circles. It goes first: were it the last to hold the group, the
            # group would end with the interpreter locked, and wait for its threads, which may need the interpreter to
            # let go of their last tensors.
            gc.collect()
            torch.distributed.destroy_process_group()


def _silent(gone: Sequence[int], group: ProcessGroup) -> WorkerLost:
    if len(gone) == group.size - 1 > 1:  # the first one holds what all are heard by
        who = "process 0 (or the network on the way to it)"
    else:
        who = f"process{'es' * (len(gone) > 1)} {', '.join(map(str, gone))}"
    return WorkerLost(
        f"{who} of {group.size} did not answer for minutes (noticed by process {group.rank}); this run is ended",
        fix="see whether its machine and the network between them are up, and nothing has stopped it; the same "
        "command with --resume goes on from the last checkpoint",
    )


@contextmanager
def _one_voice(group: ProcessGroup) -> Iterator[None]:
    """Let the main process alone log."""
    logger = logging.getLogger("cpfnet")
    before = logger.level
    if not group.is_main_process:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _lost(error: RuntimeError) -> bool:
    """Whether it comes from talking to another process; gloo's errors are known by their words alone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error) or "Connection" in str(error)
