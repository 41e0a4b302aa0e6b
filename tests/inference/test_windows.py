"""WindowInferer against whole-image application, MONAI's inferers and counted voxels."""

from __future__ import annotations

import itertools
import weakref
from typing import get_args

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.inferers import SliceInferer as MonaiSliceInferer
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from r2seg.config import Window
from r2seg.data.geometry import PLANES, pad_to
from r2seg.inference.slabs import crop_to, window_starts
from r2seg.inference.windows import BLENDS, WindowInferer

CASES = [  # window size, plane, spatial shape
    ((8, 6), None, (21, 17)),
    ((8, 6), None, (8, 6)),
    ((8, 6), None, (5, 30)),
    ((8, 6), "sagittal", (9, 13, 11)),
    ((8, 6), "coronal", (13, 7, 11)),
    ((8, 6), "axial", (13, 11, 10)),
    ((16, 20), "axial", (13, 11, 10)),
    ((16, 5), "coronal", (13, 4, 9)),
    ((6, 5, 4), None, (13, 11, 10)),
    ((6, 5, 4), None, (7, 5, 19)),
    ((6, 5, 4), None, (3, 20, 4)),
    ((6, 5, 9), None, (5, 3, 2)),
]


def image(shape, channels=2, batch=2, seed=0):
    return torch.randn(batch, channels, *shape, generator=torch.Generator().manual_seed(seed))


def pointwise(windows):
    """(B, 2, *S) -> (B, 3, *S), each voxel by itself."""
    a, b = windows[:, :1], windows[:, 1:]
    return torch.cat([a + 2 * b, a * b, 1 - a], 1)


def convolution(dims, channels=2, classes=3, seed=0):
    """A network that sees its neighbours, so that windows and blending show in the result."""
    torch.manual_seed(seed)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    return nn.Sequential(conv(channels, 4, 3, padding=1), nn.ReLU(), conv(4, classes, 3, padding=1)).eval()


class Recorder:
    """A volume that only exists in slabs: remembers what it was asked for."""

    def __init__(self, tensor):
        self.tensor, self.shape, self.asked = tensor, tuple(tensor.shape), []

    def __getitem__(self, index):
        self.asked.append(index)
        return self.tensor[index]


@pytest.mark.parametrize(
    ("length", "size", "overlap"), itertools.product([1, 7, 8, 9, 15, 16, 17, 64, 101], [1, 5, 8], [0, 0.25, 0.5, 0.9])
)
def test_windows_reach_both_borders_with_even_steps_no_longer_than_the_overlap_allows(length, size, overlap):
    starts = window_starts(length, size, overlap)
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert starts[0] == 0
    assert starts[-1] == max(0, length - size)
    assert all(0 < step <= max(1, size * (1 - overlap) + 1e-6) for step in steps)
    assert not steps or max(steps) - min(steps) <= 1


def test_positions_counted_by_hand():
    assert window_starts(10, 4, 0) == [0, 3, 6]
    assert window_starts(12, 4, 0) == [0, 4, 8]
    assert window_starts(13, 4, 0) == [0, 3, 6, 9]
    assert window_starts(11, 10, 0.9) == [0, 1]


@pytest.mark.parametrize(("size", "plane", "shape"), CASES)
@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
def test_pointwise_network_gives_what_it_gives_on_the_whole_image(size, plane, shape, blend, overlap):
    inputs = image(shape)
    logits = WindowInferer(size, plane, overlap=overlap, batch_size=3, blend=blend)(inputs, pointwise)
    torch.testing.assert_close(logits, pointwise(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "plane", "shape"), CASES)
def test_slabs_come_in_order_and_cover_each_index_once_and_each_slab_is_read_once(size, plane, shape):
    volume = Recorder(image(shape)[0])
    inferer = WindowInferer(size, plane, batch_size=3)
    axis = inferer.stream_axis(shape)
    position, parts = 0, []
    for slab, logits in inferer.stream(volume, pointwise):
        assert slab.start == position and slab.stop > slab.start
        assert logits.shape == (3, *shape[:axis], slab.stop - slab.start, *shape[axis + 1 :])
        position = slab.stop
        parts.append(logits)
    assert position == shape[axis]
    torch.testing.assert_close(torch.cat(parts, 1 + axis), pointwise(volume.tensor[None])[0], rtol=1e-5, atol=1e-5)
    asked = [index[1 + axis].indices(shape[axis])[:2] for index in volume.asked]
    assert asked[0][0] == 0 and asked[-1][1] == shape[axis]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(asked))
    assert all(index[i] == slice(None) for index in volume.asked for i in range(len(shape) + 1) if i != 1 + axis)


@pytest.mark.parametrize("plane", PLANES)
def test_every_plane_shows_its_two_axes_in_r_a_s_order(plane):
    seen = []
    axis = PLANES[plane]
    volume = torch.arange(5 * 6 * 7.0).reshape(1, 1, 5, 6, 7)
    WindowInferer((9, 10), plane, batch_size=4)(volume, lambda x: seen.append(x.clone()) or x)
    slices = torch.cat(seen)[:, 0]
    rows, columns = [n for i, n in enumerate((5, 6, 7)) if i != axis]
    for i, window in enumerate(crop_to(slices, (rows, columns))):
        assert torch.equal(window, volume[0, 0].select(axis, i))


@pytest.mark.parametrize("plane", PLANES)
def test_shift_by_one_row_and_two_columns_is_that_shift_on_the_planes_own_axes(plane):
    volume = image((9, 10, 11), channels=1)
    rows, columns = [i for i in range(3) if i != PLANES[plane]]
    shifted = WindowInferer((12, 12), plane)(volume, lambda x: x.roll((1, 2), (2, 3)))
    inner = shifted.narrow(2 + rows, 1, 8).narrow(2 + columns, 2, 7)
    assert torch.equal(inner, volume.narrow(2 + rows, 0, 8).narrow(2 + columns, 0, 7))


def test_shift_in_3d_windows_is_that_shift():
    volume = image((9, 10, 11), channels=1)
    shifted = WindowInferer((12, 12, 12))(volume, lambda x: x.roll((1, 2, 3), (2, 3, 4)))
    assert torch.equal(shifted[:, :, 1:, 2:, 3:], volume[:, :, :-1, :-2, :-3])


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize(("size", "shape"), [((8, 12), (32, 30)), ((8, 6, 4), (20, 15, 10)), ((8, 6, 4), (5, 15, 10))])
def test_equals_monai_sliding_windows_where_the_positions_agree(size, shape, blend):
    network = convolution(len(size))
    overlap = 0.5
    assert all(max(0, n - s) % (s // 2) == 0 for n, s in zip(shape, size, strict=True))  # same positions
    monai = SlidingWindowInferer(size, 3, overlap, mode=blend, padding_mode="replicate")
    with torch.no_grad():
        expected = monai(image(shape), network)
    logits = WindowInferer(size, overlap=overlap, batch_size=4, blend=blend)(image(shape), network)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("plane", "shape"), [("sagittal", (7, 20, 15)), ("coronal", (20, 6, 15)), ("axial", (20, 15, 9))]
)
def test_equals_monai_slice_inferer_where_the_positions_agree(plane, shape, blend):
    network = convolution(2)
    monai = MonaiSliceInferer(PLANES[plane], roi_size=(8, 6), sw_batch_size=2, overlap=0.5, mode=blend)
    with torch.no_grad():
        expected = monai(image(shape), network)
    logits = WindowInferer((8, 6), plane, overlap=0.5, batch_size=5, blend=blend)(image(shape), network)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "plane", "shape"), CASES)
def test_batch_size_does_not_change_the_result(size, plane, shape):
    network = convolution(len(size))
    first, *others = [WindowInferer(size, plane, batch_size=n)(image(shape), network) for n in (1, 2, 7, 100)]
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "plane", "shape"),
    [((8, 6), "axial", (13, 11, 10)), ((8, 6), "axial", (8, 6, 10)), ((4, 4, 4), None, (11, 9, 6))],
)
def test_all_batches_are_full_but_the_last(size, plane, shape):
    lengths = []
    WindowInferer(size, plane, batch_size=4)(image(shape, batch=1), lambda x: lengths.append(len(x)) or x)
    assert set(lengths[:-1]) <= {4} and 1 <= lengths[-1] <= 4


def test_pictures_of_a_batch_share_batches():
    lengths = []
    WindowInferer((8, 6), batch_size=4)(image((8, 6), batch=8), lambda x: lengths.append(len(x)) or x)
    assert lengths == [4, 4]


def test_network_may_write_into_its_input():
    inputs = image((13, 11, 10))
    before = inputs.clone()
    WindowInferer((8, 6), "axial")(inputs, lambda x: x.mul_(0))
    assert torch.equal(inputs, before)


def test_small_images_are_padded_by_their_edge_and_cropped():
    seen = []
    inputs = torch.tensor([[[[1.0, 2.0]]]])
    logits = WindowInferer((2, 5))(inputs, lambda x: seen.append(x.clone()) or x)
    assert seen[0].tolist() == [[[[1, 1, 2, 2, 2], [1, 1, 2, 2, 2]]]]
    assert torch.equal(logits, inputs)


def test_padding_takes_labels_and_is_undone_by_cropping():
    labels = torch.randint(0, 9, (1, 3, 4, 5), dtype=torch.uint8)
    padded = pad_to(labels, (6, 4, 8))
    assert padded.shape == (1, 6, 4, 8) and padded.dtype == torch.uint8
    assert torch.equal(crop_to(padded, (3, 4, 5)), labels)
    monai_like = F.pad(labels[None].float(), (1, 2, 0, 0, 1, 2), mode="replicate")[0]
    assert torch.equal(padded.float(), monai_like)
    assert pad_to(labels, (3, 2, 1)) is labels


def test_plane_covered_by_one_window_passes_bit_for_bit():
    network = convolution(2)
    inputs = image((16, 12, 7), batch=1)
    with torch.no_grad():
        expected = torch.stack([network(inputs[..., i]) for i in range(7)], -1)
    logits = WindowInferer((16, 12), "axial", batch_size=1)(inputs, network)
    assert torch.equal(logits, expected)


def test_meta_tensor_stays_one_and_the_network_gets_plain_tensors():
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    inputs = MetaTensor(image((9, 8, 7)), affine=affine)
    types = set()
    logits = WindowInferer((4, 4), "axial")(inputs, lambda x: types.add(type(x)) or x)
    assert types == {torch.Tensor}
    assert isinstance(logits, MetaTensor) and torch.equal(logits.affine, inputs.affine)
    assert all(type(part) is torch.Tensor for _, part in WindowInferer((4, 4), "axial").stream(inputs[0], lambda x: x))


def test_extra_arguments_reach_the_network():
    logits = WindowInferer((4, 4))(image((9, 8)), lambda x, a, *, b: a * x + b, 2, b=3)
    torch.testing.assert_close(logits, 2 * image((9, 8)) + 3)


def test_integer_images_are_float_windows():
    inputs = torch.arange(-30, 30, dtype=torch.int16).reshape(1, 1, 3, 4, 5)
    logits = WindowInferer((3, 3), "axial")(inputs, lambda x: x / 2)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, inputs / 2)


@pytest.mark.parametrize(("size", "plane"), [((8, 6), "axial"), ((20, 20), "axial"), ((6, 5, 4), None)])
def test_half_precision_outputs_are_blended_in_float32(size, plane):
    network = convolution(len(size))
    inputs = image((13, 11, 10))
    expected = WindowInferer(size, plane)(inputs, network)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert network(inputs[..., 0] if plane else inputs).dtype == torch.bfloat16
        logits = WindowInferer(size, plane)(inputs, network)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)
    ones = WindowInferer(size, plane)(inputs, lambda x: torch.full_like(x, 1 / 3, dtype=torch.bfloat16))
    torch.testing.assert_close(
        ones, torch.full_like(ones, float(torch.tensor(1 / 3, dtype=torch.bfloat16))), rtol=1e-6, atol=0
    )


def test_no_gradients_are_recorded():
    logits = WindowInferer((4, 4))(image((9, 8)), convolution(2))
    assert not logits.requires_grad


@pytest.mark.parametrize(("size", "plane", "shape"), [*CASES, ((8, 8), "axial", (8, 8, 20))])
def test_slabs_are_the_consumers_to_keep_and_to_change(size, plane, shape):
    volume = image(shape)[0]
    inferer = WindowInferer(size, plane, batch_size=3, overlap=0.6)
    slabs = []
    for _, logits in inferer.stream(volume, pointwise):
        slabs.append(logits.clone())
        logits.fill_(torch.nan)
    joined = torch.cat(slabs, 1 + inferer.stream_axis(shape))
    torch.testing.assert_close(joined, pointwise(volume[None])[0], rtol=1e-5, atol=1e-5)


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made within that are alive together, and their peak."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.alive:
                    self.alive[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, storage._cdata, None)
                    self.peak = max(self.peak, sum(self.alive.values()))
        return output


@pytest.mark.parametrize(("size", "plane"), [((8, 6), "axial"), ((16, 12), "axial"), ((8, 6, 5), None)])
def test_memory_does_not_grow_with_the_number_of_slices(size, plane):
    class Volume:
        def __init__(self, length):
            self.shape = (2, 16, 12, length)

        def __getitem__(self, index):
            start, stop, _ = index[-1].indices(self.shape[-1])
            return torch.ones(2, 16, 12, stop - start)

    peaks = []
    for length in (40, 400):
        with LiveBytes() as live:
            slices = sum(logits.shape[-1] for _, logits in WindowInferer(size, plane).stream(Volume(length), pointwise))
        assert slices == length
        peaks.append(live.peak)
    assert peaks[0] > 0
    assert peaks[1] == peaks[0]


def test_windows_go_to_the_requested_device_and_logits_stay_there():
    volume = Recorder(image((9, 8, 20))[0])  # the meta device computes shapes only
    slabs = list(WindowInferer((4, 4), "axial").stream(volume, pointwise, device="meta"))
    assert {logits.device.type for _, logits in slabs} == {"meta"}
    assert [slab.stop for slab, _ in slabs] == [4, 8, 12, 16, 20]
    asked = [index[3].indices(20)[:2] for index in volume.asked]
    assert asked == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]


@pytest.mark.gpu
@pytest.mark.parametrize("inputs_on", ["cpu", "cuda"])
@pytest.mark.parametrize(("size", "plane", "shape"), CASES)
def test_cuda_equals_cpu_and_logits_come_back_to_the_inputs_device(size, plane, shape, inputs_on):
    network = convolution(len(size)).double()  # no TF32
    inferer = WindowInferer(size, plane, batch_size=3)
    inputs = image(shape).double()
    expected = inferer(inputs, network)
    logits = inferer(inputs.to(inputs_on), network.cuda())
    assert logits.device.type == inputs_on
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-5, atol=1e-5)
    axis = inferer.stream_axis(shape)
    slabs = [logits for _, logits in inferer.stream(inputs[0].to(inputs_on), network)]
    assert all(logits.is_cuda for logits in slabs)
    torch.testing.assert_close(torch.cat(slabs, 1 + axis).cpu(), expected[0], rtol=1e-5, atol=1e-5)


def test_is_a_monai_inferer_that_a_bundle_can_name():
    parser = ConfigParser(
        {"inferer": {"_target_": "r2seg.inference.windows.WindowInferer", "size": [4, 4], "plane": "axial"}}
    )
    inferer = parser.get_parsed_content("inferer")
    assert isinstance(inferer, Inferer)
    assert (inferer.size, inferer.plane, inferer.overlap) == ((4, 4), "axial", 0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (4,)}, r"size is \[4\]"),
        ({"size": 4}, "size is 4: give 2 or 3"),
        ({"size": (4, 1.5)}, r"size is \(4, 1.5\): give 2 or 3 whole"),
        ({"size": (4, 0)}, r"size is \[4, 0\]"),
        ({"size": (4, 4), "plane": "transversal"}, "'transversal': give one of axial, coronal, sagittal"),
        ({"size": (4, 4, 4), "plane": "axial"}, r"\[4, 4, 4\] is 3-D but plane is 'axial'"),
        ({"size": (4, 4), "overlap": 1}, "overlap is 1"),
        ({"size": (4, 4), "overlap": -0.1}, "overlap is -0.1"),
        ({"size": (4, 4), "overlap": float("nan")}, "overlap is nan"),
        ({"size": (4, 4), "batch_size": 0}, "batch_size is 0"),
        ({"size": (4, 4), "blend": "mean"}, "'mean': give one of gaussian, constant"),
    ],
)
def test_wrong_arguments_are_refused_with_their_values(arguments, message):
    with pytest.raises(ValueError, match=message):
        WindowInferer(**arguments)


@pytest.mark.parametrize(
    ("size", "plane", "shape", "message"),
    [
        ((4, 4), None, (9, 8, 7), r"\[4, 4\] is 2-D, the image \[9, 8, 7\] a volume, and no plane is given"),
        ((4, 4), "axial", (9, 8), r"plane is 'axial' but the image \[9, 8\] is a picture"),
        ((4, 4, 4), None, (9, 8), r"\[4, 4, 4\] is 3-D but the image \[9, 8\] is a picture"),
        ((4, 4), None, (9, 0), r"\[9, 0\]"),
    ],
)
def test_windows_that_do_not_fit_the_image_are_refused_before_the_network_runs(size, plane, shape, message):
    with pytest.raises(ValueError, match=message):
        WindowInferer(size, plane)(image(shape), None)
    with pytest.raises(ValueError, match=message):
        WindowInferer(size, plane).stream(image(shape)[0], None)


def test_inputs_without_a_batch_are_refused():
    with pytest.raises(ValueError, match=r"\[9, 8, 7\]: expected"):
        WindowInferer((4, 4))(torch.zeros(9, 8, 7), pointwise)
    with pytest.raises(ValueError, match=r"\[0, 1, 8, 7\]: expected"):
        WindowInferer((4, 4))(torch.zeros(0, 1, 8, 7), pointwise)


@pytest.mark.parametrize("output", [tuple, list])
def test_network_with_several_outputs_is_refused_by_name(output):
    with pytest.raises(TypeError, match=f"returned a {output.__name__}"):
        WindowInferer((4, 4))(image((9, 8)), lambda x: output([x, x]))


def test_network_that_changes_the_size_is_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"made \[4, 2, 2, 2\] of windows \[4, 2, 4, 4\]"):
        WindowInferer((4, 4))(image((9, 8)), lambda x: x[..., ::2, ::2])


def test_the_planes_and_blends_are_those_that_a_config_may_name():
    plane, _ = get_args(Window.model_fields["plane"].annotation)
    assert sorted(get_args(plane)) == sorted(PLANES)
    assert sorted(get_args(Window.model_fields["blend"].annotation)) == sorted(BLENDS)
