"""Accelerate's configs: it knows what is in them, and what they need of the loop is there."""

from pathlib import Path

import pytest
import torch.multiprocessing
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils import ComputeEnvironment, DistributedType
from sharded_training import compare

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


def test_weights_that_fsdp_shares_out_are_averaged_validated_and_resumed_as_whole_ones(tmp_path):
    torch.multiprocessing.spawn(compare, (str(tmp_path),), nprocs=2)
