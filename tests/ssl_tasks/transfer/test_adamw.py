import subprocess
import sys

import torch

from ssl_tasks.transfer.networks.adamw import AdamW


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(4, 3, generator=generator, dtype=torch.float64)) for _ in range(2)]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimizer, reference = AdamW(ours, 0.05), torch.optim.AdamW(theirs, weight_decay=0.05)
    for rate in (0.1, 0.03, 0.01, 0.3):
        for parameters in (ours, theirs):
            sum((parameter**4).sum() for parameter in parameters[:1]).backward()
        optimizer.step(rate)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        reference.zero_grad()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    assert ours[0].grad is None


def test_a_frozen_weight_starts_afresh_and_scales_are_shares_of_the_rate() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(3, generator=generator, dtype=torch.float64)) for _ in range(2)]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    optimizer = AdamW(ours, 0.05, [1.0, 0.25])
    groups = [{"params": [parameter]} for parameter in theirs]
    reference = torch.optim.AdamW(groups, weight_decay=0.05)
    for step, rate in enumerate((0.1, 0.03, 0.01, 0.3)):
        for parameters in (ours, theirs):
            parameters[1].requires_grad_(step >= 2)
            sum((parameter**4).sum() for parameter in parameters if parameter.requires_grad).backward()
        optimizer.step(rate)
        for group, scale in zip(reference.param_groups, (1.0, 0.25), strict=True):
            group["lr"] = rate * scale
        reference.step()
        reference.zero_grad()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_the_compiler_is_not_imported() -> None:
    code = (
        "import sys, torch; from ssl_tasks.transfer.networks.adamw import AdamW\n"
        "p = torch.nn.Parameter(torch.ones(2)); o = AdamW([p], 0.1); p.sum().backward(); o.step(0.1)\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={"PYTHONPATH": ":".join(sys.path)})
