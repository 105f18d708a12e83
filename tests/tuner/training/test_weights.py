import io

import pytest
import torch
from torch import nn

from tuner.models.network import create_model_from_config
from tuner.training.optimizers import create_optimizer, optimizer_for
from tuner.training.weights import EMA_EPOCHS, FlatParameters, WeightEMA, weight_decay_groups


@pytest.fixture
def model(tiny_config):
    return create_model_from_config(tiny_config())


def copies(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_flattening_keeps_weights_scores_and_strides(model):
    images = torch.rand(4, 1, 64, 128)
    before, scores = copies(model), model.eval()(images)
    weights = FlatParameters(model)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(model(images), scores)
    # Convolutions are fastest with channels last, above all on a GPU.
    assert {
        tensor.is_contiguous(memory_format=torch.channels_last) for tensor in after.values() if tensor.dim() == 4
    } == {True}
    assert sum(map(len, weights.values)) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_optimizer_updates_flat_parameters_like_separate_parameters(tiny_config, optimizer):
    config = tiny_config(optimizer_type=optimizer, weight_decay=0.01, learning_rate=1e-3)
    images = torch.rand(8, 1, 64, 128, generator=torch.Generator().manual_seed(1))
    single, flattened = create_model_from_config(config), create_model_from_config(config)
    weights = FlatParameters(flattened)
    single_optimizer, flat_optimizer = create_optimizer(single, config), optimizer_for(weights.values, config)
    for _ in range(4):
        single.zero_grad()
        for model in (single, flattened):
            model(images)[..., 0].mean().backward()
        weights.gather_gradient()
        norms = [
            nn.utils.clip_grad_norm_(parameters, 1e-3) for parameters in (list(single.parameters()), weights.values)
        ]
        assert torch.allclose(*norms, rtol=1e-4)
        single_optimizer.step()
        flat_optimizer.step()
    assert all(
        torch.allclose(tensor, flattened.state_dict()[name], rtol=1e-3, atol=1e-5)
        for name, tensor in single.state_dict().items()
    )


def test_gradients_of_several_passes_add_up_and_are_cleared(model):
    weights = FlatParameters(model)
    first = weight_decay_groups(model)[0][0]
    for factor in (1.0, 2.0):
        (first.sum() * factor + sum(parameter.sum() for parameter in model.parameters())).backward()
    weights.gather_gradient()
    decayed, undecayed = (flat.grad for flat in weights.values)
    assert decayed is not None
    assert undecayed is not None
    assert torch.equal(decayed[: first.numel()], torch.full((first.numel(),), 5.0))
    assert torch.equal(torch.cat([decayed[first.numel() :], undecayed]).unique(), torch.tensor([2.0]))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_loading_a_checkpoint_updates_the_flat_parameters(model):
    weights = FlatParameters(model)
    content = io.BytesIO()
    torch.save({name: tensor + 1 for name, tensor in model.state_dict().items()}, content)
    content.seek(0)
    before = [tensor.detach().clone() for tensor in (*weights.values, weights.statistics, weights.counts)]
    model.load_state_dict(torch.load(content))
    after = [*weights.values, weights.statistics, weights.counts]
    assert all(torch.equal(new, old + 1) for new, old in zip(after, before, strict=True))


def test_saved_file_contains_the_weights_once(model):
    plain, flat = io.BytesIO(), io.BytesIO()
    torch.save(model.state_dict(), plain)
    FlatParameters(model)
    torch.save(model.state_dict(), flat)
    assert len(flat.getvalue()) < len(plain.getvalue())


def test_only_weights_before_a_normalisation_have_no_weight_decay(tiny_config):
    model = create_model_from_config(tiny_config())
    decayed, undecayed = weight_decay_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(parameter)] for parameter in undecayed} == {
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 4 and name.startswith("encoder.") and ".mix." not in name
    }
    assert len(decayed) + len(undecayed) == len(names)
    # Doubling these weights does not change the scores.
    images, scores = torch.rand(4, 1, 64, 128), []
    model.train()
    for _ in range(2):
        scores.append(model(images).detach())
        with torch.no_grad():
            for parameter in undecayed:
                parameter *= 2
    assert torch.allclose(*scores, atol=1e-3)


def test_ema_starts_from_the_weights_and_its_time_constant_grows(tiny_config):
    model = create_model_from_config(tiny_config())
    ema = WeightEMA(model, FlatParameters(model), steps_per_epoch=100)
    average, weights = (next(iter(network.parameters())) for network in (ema.module, model))
    with torch.no_grad():
        weights.fill_(1.0)
        ema.update()
        assert torch.equal(average, weights)
        weights.fill_(0.0)
        expected = 1.0
        for steps in range(1, 600):
            ema.update()
            expected *= 1 - max(1 / (EMA_EPOCHS * 100), 9 / (10 + steps))
            if steps in (1, 5, 599):
                assert average.mean().item() == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_ema_includes_normalisation_statistics(tiny_config):
    model = create_model_from_config(tiny_config())
    ema = WeightEMA(model, FlatParameters(model), steps_per_epoch=10)
    names = [name for name, _ in model.named_buffers() if name.endswith("running_mean")]
    assert names
    for _ in range(3):
        model.train()(torch.rand(4, 1, 64, 128))
        ema.update()
    weights, average = dict(model.named_buffers()), dict(ema.module.named_buffers())
    assert all(not torch.equal(average[name], weights[name]) and average[name].abs().sum() > 0 for name in names)
    assert all(torch.equal(average[name], weights[name]) for name in weights if name.endswith("num_batches_tracked"))
