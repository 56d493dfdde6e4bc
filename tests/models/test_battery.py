"""The common battery: every registered method, every profile, every kind of data it takes."""

import copy
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from models import registry
from models.base import Run, StepState
from models.errors import BadCheckpoint, BadImages, Cancelled, ExportMismatch
from models.export import check_parity
from models.worth.metrics import acc, ari
from tests.models.battery import (
    CASES,
    CASES_ON_DATA,
    CASES_ON_VECTORS,
    DATA,
    FIT_ON_DATA,
    NETWORKS,
    NETWORKS_ON_DATA,
    K,
    N,
    exported,
    fitted,
    images,
    make,
    undisturbed,
    vectors,
)

each_case = pytest.mark.parametrize(("method", "profile"), CASES)
each_network = pytest.mark.parametrize(("method", "profile"), NETWORKS)
each_case_on_data = pytest.mark.parametrize(("method", "profile", "data"), CASES_ON_DATA)


@pytest.mark.parametrize(("method", "profile", "data"), FIT_ON_DATA)
def test_clear_clusters_are_found_without_targets(method, profile, data):
    x, kinds = DATA[data]()

    assert acc(kinds, fitted(method, profile, data).predict(x)) == 1.0


@each_case_on_data
def test_probabilities_sum_to_one_and_agree_with_the_prediction(method, profile, data):
    x, _ = DATA[data]()
    model = fitted(method, profile, data)

    p = model.assign(x)

    assert p.shape == (N, K)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (p.argmax(axis=1) == model.predict(x)).all()
    assert len(model.embed(x)) == N


@pytest.mark.parametrize(("method", "profile", "data"), NETWORKS_ON_DATA)
def test_the_exported_graph_gives_the_models_answers_in_any_batch(method, profile, data):
    x, _ = DATA[data]()
    model = fitted(method, profile, data)

    session = onnxruntime.InferenceSession(exported(method, profile, data), providers=["CPUExecutionProvider"])

    expected = model.assign(x)
    for size in (1, 7, N):
        p, is_outlier = session.run(["probabilities", "is_outlier"], {"inputs": x[:size]})
        np.testing.assert_allclose(p, expected[:size], atol=1e-4)
        assert is_outlier.shape == (size,)


@each_network
def test_the_exported_graph_tells_nothing_of_the_machine_and_the_source(method, profile):
    data = exported(method, profile, "gray 8")

    for told in (b"stack_trace", b"class_hierarchy", b"models.", b".py", b"site-packages"):
        assert told not in data


@each_network
def test_export_refuses_a_graph_that_disagrees(method, profile, tmp_path):
    x, _ = images()
    model = copy.deepcopy(fitted(method, profile))
    (tmp_path / "model.onnx").write_bytes(exported(method, profile, "gray 8"))
    parts = [*model.network.parameters(), *model.network.buffers()]
    labels = [part for part in parts if part.dtype == torch.long and part.ndim]  # not a counter of batch norm's
    for part in labels or parts:
        part.data = (part.data + 1) % K if labels else part.data.roll(1, 0) if part.ndim else part.data

    with pytest.raises(ExportMismatch):
        check_parity(model, tmp_path / "model.onnx", torch.from_numpy(x))


@each_case
def test_the_same_seed_gives_the_same_assignments_and_touches_nobody_elses_random_numbers(method, profile):
    x, _ = images()
    np.random.seed(5)
    torch.manual_seed(5)
    expected = np.random.random(), torch.rand(1)
    np.random.seed(5)
    torch.manual_seed(5)

    again = make(method, x, profile).fit(x)

    assert (np.random.random(), torch.rand(1)) == expected
    np.testing.assert_array_equal(again.assign(x), fitted(method, profile).assign(x))


@each_case
def test_a_saved_model_comes_back(method, profile, tmp_path):
    x, _ = images()
    model = fitted(method, profile)
    model.save(tmp_path / "model")

    again = type(model).load(tmp_path / "model", type(model.config))

    np.testing.assert_array_equal(again.assign(x), model.assign(x))
    assert (again.config, again.spec, again.profile) == (model.config, model.spec, model.profile)


@each_case
def test_an_altered_model_file_is_refused(method, profile, tmp_path):
    model = fitted(method, profile)
    model.save(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))

    with pytest.raises(BadCheckpoint):
        type(model).load(tmp_path / "model", type(model.config))


@each_case
def test_bad_inputs_are_refused(method, profile):
    x, _ = images()
    for given in (x[:, :, :4], x.astype(np.float32), x[: K - 1]):
        with pytest.raises(BadImages):
            make(method, x, profile).fit(given)


@pytest.mark.parametrize(("method", "profile"), CASES_ON_VECTORS)
def test_vectors_that_are_not_finite_are_refused(method, profile):
    bad = vectors()[0].copy()
    bad[5, 1] = np.nan

    with pytest.raises(BadImages):
        make(method, bad, profile).fit(bad)


@each_case
def test_steps_report_rising_progress_and_can_cancel(method, profile):
    x, _ = images()

    progress = [state.progress for state in undisturbed(method, profile, "gray 8")[1]]
    assert progress == sorted(progress)
    assert progress[0] < 0.5 < progress[-1] <= 1

    def stop(_: StepState) -> None:
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        make(method, x, profile).fit(x, Run(on_step=stop))


@pytest.mark.parametrize(("method", "profile"), CASES_ON_VECTORS)
def test_about_one_training_image_in_a_hundred_is_an_outlier_and_a_stranger_is_one(method, profile):
    rng = np.random.default_rng(0)
    x = (rng.normal(scale=0.2, size=(600, 4)) + np.arange(600)[:, None] % K * 8).astype(np.float32)
    model = make(method, x, profile).fit(x)

    _, is_outlier, *_ = model.serving_graph(torch.from_numpy(x))
    _, is_stranger, *_ = model.serving_graph(torch.full((1, 4), 400.0))

    assert 0 < is_outlier.float().mean() <= 0.011
    assert is_stranger.all()


@each_case
def test_configs_are_frozen_and_refuse_unknown_fields(method, profile):
    spec = registry.get(method)
    config = spec.make_config(profile, {"n_clusters": K})

    with pytest.raises(TypeError):
        spec.make_config(profile, {"n_clusters": K, "colour": 1})
    with pytest.raises(AttributeError):
        config.n_clusters = 4
    assert replace(config, n_clusters=4).n_clusters == 4


@pytest.mark.parametrize(("method", "profile", "data"), FIT_ON_DATA)
def test_renaming_clusters_is_not_a_difference(method, profile, data):
    x, kinds = DATA[data]()

    labels = fitted(method, profile, data).predict(x)

    assert ari(kinds, (labels + 1) % K) == 1.0


class Kept:
    """Checkpoints in memory."""

    def __init__(self) -> None:
        self.states: list[tuple[dict, dict]] = []

    def save(self, name, tensors, facts) -> None:
        # Files hold no strides.
        held = {key: value.clone(memory_format=torch.contiguous_format) for key, value in tensors.items()}
        self.states.append((held, copy.deepcopy(facts)))

    def latest(self, phase):
        return next((state for state in reversed(self.states) if state[1]["phase"] == phase), None)


DEEP = [case for case in CASES if registry.get(case[0]).uses_gpu]


@pytest.mark.parametrize("share", [0.6, *(pytest.param(share, marks=pytest.mark.thorough) for share in (0.3, 0.9))])
@pytest.mark.parametrize(("method", "profile"), DEEP)
def test_a_fit_that_was_stopped_goes_on_to_the_result_of_an_undisturbed_one(method, profile, share):
    x, _ = images()
    model, states = undisturbed(method, profile, "gray 8")
    kept, n = Kept(), 0

    def stop(_: StepState) -> None:
        nonlocal n
        n += 1
        if n >= share * len(states):
            raise Cancelled("stop")

    with pytest.raises(Cancelled):
        make(method, x, profile).fit(x, Run(on_step=stop, checkpoints=kept))
    resumed = make(method, x, profile).fit(x, Run(checkpoints=kept))

    np.testing.assert_array_equal(resumed.assign(x), model.assign(x))
