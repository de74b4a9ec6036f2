"""A model that two processes share out, beside the same one whole: for processes that a test starts."""

import torch
import torch.distributed
from harness import AveragedWeights, averaged_weights, whole_weights
from torch.distributed.fsdp import fully_shard


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


def compare(rank: int, folder: str) -> None:
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
