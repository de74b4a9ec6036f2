"""Accelerate's configs: it knows what is in them, and what they need of the loop is there."""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import ComputeEnvironment, DistributedType
from harness import AveragedWeights, averaged_weights, whole_weights
from torch.distributed.fsdp import fully_shard

CONFIGS = Path(__file__).parents[2] / "train" / "configs" / "accelerate"
KINDS = {
    "one_gpu": (DistributedType.NO, 1),
    "ddp_8_gpus": (DistributedType.MULTI_GPU, 8),
    "fsdp_8_gpus": (DistributedType.FSDP, 8),
    "deepspeed_zero2": (DistributedType.DEEPSPEED, 8),
}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_knows_all_that_a_config_says(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig) and config.compute_environment == ComputeEnvironment.LOCAL_MACHINE
    assert (config.distributed_type, config.num_processes) == KINDS[path.stem]
    launch = {name for action in launch_command_parser()._actions for name in action.option_strings}
    written = yaml.safe_load(path.read_text())
    for section in ("fsdp_config", "deepspeed_config"):
        assert getattr(config, section) == written.get(section, {})
        assert all(f"--{name}" in launch for name in written.get(section, {}))


def test_each_kind_has_a_config():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(KINDS)


def _learn(shared_out: bool) -> tuple[torch.nn.Module, AveragedWeights, list[torch.nn.Parameter]]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
    if shared_out:
        fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    parameters = list(model.parameters())
    ema = AveragedWeights(parameters, decay=0.5)
    for _ in range(3):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.step(parameters)
    return model, ema, parameters


def _compare(rank: int, folder: str) -> None:
    """On each of two processes: shared out, the same is learned, averaged, validated by one alone and resumed."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    (alone, expected, _), (model, ema, parameters) = _learn(False), _learn(True)
    expected.copy_to(alone.parameters())
    trained = [parameter.full_tensor() for parameter in parameters]
    with averaged_weights(ema, parameters), whole_weights(model):
        if rank == 0:
            for name, value in alone.state_dict().items():
                torch.testing.assert_close(model.get_parameter(name).detach(), value)
    for parameter, value in zip(parameters, trained, strict=True):
        assert torch.equal(parameter.full_tensor(), value)
    state = ema.state_dict()
    if rank == 0:
        torch.save(state, f"{folder}/ema.pt")
    torch.distributed.barrier()
    resumed = AveragedWeights(parameters, decay=0.5)
    resumed.load_state_dict(torch.load(f"{folder}/ema.pt", weights_only=True))
    for share, value in zip(resumed.shadow_params, expected.shadow_params, strict=True):
        assert share.to_local().numel() < value.numel()
        torch.testing.assert_close(share.full_tensor(), value)
    torch.distributed.destroy_process_group()


def test_weights_that_fsdp_shares_out_are_averaged_validated_and_resumed_as_whole_ones(tmp_path):
    torch.multiprocessing.spawn(_compare, (str(tmp_path),), nprocs=2)
