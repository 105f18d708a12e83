import pytest
import torch

from search_spaces import ConfigurationError, ModelCreationError, TrainingConfig, load_model_definitions
from tuner.data.batches import create_data_loaders
from tuner.models.encoder import count_parameters
from tuner.models.network import build_model, create_model_from_config

BUILT_IN = list(load_model_definitions(TrainingConfig.model_config_path))


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_parameters_at_least_double_from_small_to_medium_to_large():
    small, medium, large = (
        count_parameters(create_model_from_config(TrainingConfig(model_name=name)))
        for name in ("small", "medium", "large")
    )
    assert 2 * small <= medium
    assert 2 * medium <= large


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_score_and_read_grey_images(name):
    model = create_model_from_config(TrainingConfig(model_name=name)).eval()
    scores = model(torch.rand(2, 1, 64, 128))
    assert scores.shape == (2, 32 if name == "ctc" else 9, 13)
    assert scores.isfinite().all()
    assert model.read(scores).shape == (2, 9)


def test_scores_do_not_depend_on_brightness_and_contrast():
    model = create_model_from_config(TrainingConfig(model_name="small")).eval()
    images = torch.rand(2, 1, 64, 128)
    assert torch.allclose(model(images), model(0.3 * images + 0.5), atol=1e-3)


def test_blank_image_gives_finite_scores():
    model = create_model_from_config(TrainingConfig(model_name="small")).eval()
    assert model(torch.full((1, 1, 64, 128), 0.7)).isfinite().all()


def test_vocabulary_and_label_length_determine_the_output_shape(tiny_config, tiny_models):
    images, definitions = torch.rand(2, 1, 64, 128), load_model_definitions(tiny_models)
    assert build_model(definitions["tiny"], tiny_config(max_sequence_length=5))(images).shape == (2, 5, 13)
    assert build_model(definitions["tiny"], tiny_config(vocab_size=15))(images).shape == (2, 9, 15)
    assert build_model(definitions["tiny_ctc"], tiny_config(vocab_size=15))(images).shape == (2, 32, 15)


@pytest.mark.parametrize(("vocab_size", "max_sequence_length"), [(3, 1), (-1, 0), (13.0, "9"), (True, None)])
def test_vocabulary_too_small_for_a_label_is_rejected(vocab_size, max_sequence_length, tiny_config):
    with pytest.raises(ModelCreationError) as caught:
        create_model_from_config(tiny_config(vocab_size=vocab_size, max_sequence_length=max_sequence_length))
    rule = "expected a whole number of at least"
    assert caught.value.problems == (
        f"vocab_size: found {vocab_size!r}; {rule} 4; use that of the dataset",
        f"max_sequence_length: found {max_sequence_length!r}; {rule} 2; use that of the dataset",
    )


@pytest.mark.parametrize(("vocab_size", "max_sequence_length"), [(15, 20), (12, 1), (13.0, "9"), (True, None)])
def test_vocabulary_that_differs_from_the_dataset_is_rejected(vocab_size, max_sequence_length, tiny_config):
    with pytest.raises(ConfigurationError) as caught:
        create_data_loaders(tiny_config(vocab_size=vocab_size, max_sequence_length=max_sequence_length))
    reason = "because the dataset has 10 characters and labels of at most 8"
    assert caught.value.problems == (
        f"vocab_size: found {vocab_size!r}; expected 13, {reason}; use vocab_size=13",
        f"max_sequence_length: found {max_sequence_length!r}; expected 9, {reason}; use max_sequence_length=9",
    )


@pytest.mark.parametrize(("name", "hint"), [("tinny", "did you mean 'tiny'?"), ("résumé", "use one of these")])
def test_unknown_model_is_rejected_with_a_list_of_the_defined_models(tiny_config, name, hint):
    with pytest.raises(ModelCreationError) as caught:
        create_model_from_config(tiny_config(model_name=name))
    text = str(caught.value)
    assert all(part in text for part in (repr(name), "tiny, tiny_ctc", hint))


def test_missing_definitions_file_is_named_in_the_error(tiny_config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        create_model_from_config(tiny_config(model_config_path=str(tmp_path / "nowhere.yaml")))


def test_definitions_file_of_an_older_format_is_explained(tiny_config, tmp_path):
    older = tmp_path / "model_config.yaml"
    older.write_text("model:\n  cnn: {type: resnet18}\n  rnn: {hidden_size: 128}\n")
    with pytest.raises(ConfigurationError, match="older"):
        create_model_from_config(tiny_config(model_config_path=str(older)))


def test_initial_weights_depend_only_on_the_seed(tiny_config):
    torch.manual_seed(1)
    one = weights(create_model_from_config(tiny_config(seed=3)))
    torch.manual_seed(2)
    assert torch.equal(one, weights(create_model_from_config(tiny_config(seed=3))))
    assert not torch.equal(one, weights(create_model_from_config(tiny_config(seed=4))))


def test_building_a_model_keeps_the_global_random_state(tiny_config):
    before = torch.get_rng_state()
    create_model_from_config(tiny_config())
    assert torch.equal(before, torch.get_rng_state())


def test_every_key_of_a_definition_changes_the_network(tiny_config, tiny_models):
    base = load_model_definitions(tiny_models)["tiny"]
    changes = {
        "decoder": "ctc",
        "stem_channels": (4, 6),
        "stage_channels": (8, 8),
        "blocks_per_stage": 1,
        "width": 12,
        "context_layers": 1,
    }
    assert set(changes) == set(type(base).model_fields)
    sizes = {count_parameters(build_model(base, tiny_config()))}
    for key, value in changes.items():
        sizes.add(count_parameters(build_model(base.model_copy(update={key: value}), tiny_config())))
    assert len(sizes) == 1 + len(changes)
