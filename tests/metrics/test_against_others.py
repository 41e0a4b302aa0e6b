"""Every measure against an implementation that is not ours, on 200 random masks: 2-D and 3-D, anisotropic, some empty."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist

from r2seg import metrics

NUM_SHAPES = 200


def random_masks():
    """Pairs (prediction, reference, spacing): blobs and dust, every tenth side empty, some sizes 1."""
    generator = np.random.default_rng(7)
    for index in range(NUM_SHAPES):
        dims = 2 + index % 2
        shape = generator.integers(1 if index % 9 == 0 else 4, (25, 25, 9)[:dims])
        masks = []
        for side in range(2):
            noise = generator.normal(size=shape)
            smooth = ndimage.gaussian_filter(noise, generator.uniform(0, 1.5))
            mask = smooth > np.quantile(smooth, generator.uniform(0.3, 0.95))
            masks.append(mask & ((index + 3 * side) % 10 != 0))
        if index % 4 == 0:  # alike, as predictions are
            masks[0] = masks[1] ^ (generator.random(shape) < 0.05)
        if index % 40 == 0:
            masks = [np.zeros(shape, bool)] * 2
        yield masks[0], masks[1], generator.uniform(0.3, 4, dims)


MASKS = list(random_masks())


def tensors(*arrays):
    return (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def test_the_masks_hold_empty_ones_of_every_kind():
    kinds = {(p.any().item(), r.any().item()) for p, r, _ in MASKS}
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}
    assert len(MASKS) == NUM_SHAPES


def equal(ours, theirs, tolerance=1e-6):
    if math.isnan(theirs) or math.isinf(theirs):
        return str(float(ours)) == str(float(theirs))
    return abs(float(ours) - theirs) <= tolerance


def test_scores_of_counts_equal_scikit_learns():
    from sklearn import metrics as sk

    nan = float("nan")
    warnings.simplefilter("ignore")
    for prediction, reference, _ in MASKS[::3]:  # eight functions for each
        p, r = prediction.ravel().astype(int), reference.ravel().astype(int)
        counts = metrics.count_confusion(*tensors(prediction, reference), 1)
        both_labels = p.any() and r.any() and not p.all() and not r.all()
        expected = {
            metrics.dice: sk.f1_score(r, p, zero_division=nan) if p.any() or r.any() else nan,
            metrics.iou: sk.jaccard_score(r, p) if p.any() or r.any() else nan,
            metrics.sensitivity: sk.recall_score(r, p, zero_division=nan),
            metrics.specificity: sk.recall_score(r, p, pos_label=0, zero_division=nan),
            metrics.precision: sk.precision_score(r, p, zero_division=nan),
            metrics.accuracy: sk.accuracy_score(r, p),
            metrics.balanced_accuracy: sk.balanced_accuracy_score(r, p) if r.any() and not r.all() else nan,
            metrics.matthews: sk.matthews_corrcoef(r, p) if both_labels else nan,
        }
        for score, value in expected.items():
            assert equal(score(counts), value), (score.__name__, float(score(counts)), value)
        jaccard = expected[metrics.iou]
        assert equal(metrics.threshold_jaccard(counts), 0.0 if jaccard < 0.65 else jaccard)


def brute_surface(mask):
    return mask & ~ndimage.binary_erosion(mask)


def test_surface_scores_equal_all_pairs_of_surface_points():
    for prediction, reference, spacing in MASKS:
        points = [np.argwhere(brute_surface(mask)) * spacing for mask in (prediction, reference)]
        ours = metrics.surface_distances(*tensors(prediction, reference), spacing)
        if len(points[0]) and len(points[1]):
            table = cdist(*points)
            to_reference, to_prediction = table.min(axis=1), table.min(axis=0)
            both = np.concatenate([to_reference, to_prediction])
            expected = {
                "hd": both.max(),
                "hd95": max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95)),
                "assd": both.mean(),
                "nsd": (both <= 1.7).mean(),
            }
        else:
            distance, share = (np.nan, np.nan) if len(points[0]) == len(points[1]) else (np.inf, 0.0)
            expected = {"hd": distance, "hd95": distance, "assd": distance, "nsd": share}
        assert equal(metrics.hausdorff(ours), expected["hd"], 1e-9)
        assert equal(metrics.hausdorff(ours, percentile=95), expected["hd95"], 1e-9)
        assert equal(metrics.average_surface_distance(ours), expected["assd"], 1e-9)
        assert equal(metrics.surface_dice(ours, 1.7), expected["nsd"], 1e-9)


def test_surface_scores_equal_monais():
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    compared = 0
    for prediction, reference, spacing in MASKS[::2]:
        if not (prediction.any() and reference.any()) or 1 in prediction.shape:
            continue  # MONAI has other rules for empty masks and no 1-pixel axes
        compared += 1
        p, r = (mask[None, None].float() for mask in tensors(prediction, reference))
        options = {"include_background": True, "spacing": list(spacing)}
        ours = metrics.surface_distances(p[0, 0], r[0, 0], spacing)
        assert equal(metrics.hausdorff(ours), float(compute_hausdorff_distance(p, r, **options)), 1e-3)
        assert equal(
            metrics.hausdorff(ours, 95), float(compute_hausdorff_distance(p, r, percentile=95, **options)), 1e-3
        )
        theirs = float(compute_average_surface_distance(p, r, symmetric=True, **options))
        assert equal(metrics.average_surface_distance(ours), theirs, 1e-3)
        assert equal(metrics.surface_dice(ours, 1.7), float(compute_surface_dice(p, r, [1.7], **options)), 1e-6)
    assert compared > 50


@pytest.mark.parametrize("spacing", [0.1, 0.3, 0.625, 0.7, 0.703125, 0.9, 1.1, 1.37, 2.3, 3.3])
def test_a_shift_by_one_voxel_is_within_a_tolerance_of_one_voxel(spacing):
    """A block shifted by one voxel: every surface pixel has one of the other surface at most one voxel away."""
    from monai.metrics import compute_surface_dice

    first = np.zeros((24, 22, 20), bool)
    first[5:15, 6:13, 4:12] = True
    for axis in range(3):
        p, r = tensors(np.roll(first, 1, axis), first)
        for scale in (1, 1 + 1e-6):  # as a header in float32 or a rotated grid may hold it
            for steps in ([spacing * scale] * 3, float(np.float32(spacing)) * scale * np.eye(3), rotated(spacing)):
                ours = metrics.surface_dice(metrics.surface_distances(p, r, steps), spacing)
                assert float(ours) == 1, steps
        assert float(metrics.surface_dice(metrics.surface_distances(p, r, [spacing] * 3), 0.99 * spacing)) < 1
        masks = (mask[None, None].float() for mask in (p, r))
        theirs = compute_surface_dice(*masks, [1.0], include_background=True)  # in voxels, where 1 is exact
        assert float(theirs) == 1


def rotated(spacing):
    """Steps of a grid turned about two axes, rounded as in a float32 header."""
    turn = np.eye(3)
    for i, j, angle in ((0, 1, 0.3), (1, 2, -0.7)):
        part = np.eye(3)
        part[[i, j], [i, j]], part[i, j], part[j, i] = np.cos(angle), -np.sin(angle), np.sin(angle)
        turn = turn @ part
    return (turn * spacing).astype(np.float32).astype(np.float64)


def test_distances_follow_a_sheared_grid():
    first, second = np.zeros((2, 5, 5), bool)
    first[1, 1] = second[2, 3] = True
    matrix = np.array([[2.0, 1.0], [0.0, 3.0]])
    distances = metrics.surface_distances(*tensors(first, second), matrix)
    assert equal(metrics.hausdorff(distances), float(np.linalg.norm(matrix @ [1, 2])), 1e-12)


def test_wrong_shapes_of_masks_and_spacing_are_refused():
    with pytest.raises(ValueError, match=r"spacing_mm of shape \(3,\) against masks of 2 axes"):
        metrics.surface_distances(torch.ones(2, 2), torch.ones(2, 2), (1, 1, 1))
    with pytest.raises(ValueError, match=r"reference of shape \(3,\) against prediction of \(2,\)"):
        metrics.surface_distances(torch.ones(2), torch.ones(3))


def test_lesions_equal_components_of_scikit_image():
    from skimage.measure import label

    for prediction, reference, _ in MASKS:
        components = [label(mask, connectivity=mask.ndim) for mask in (prediction, reference)]
        found = [len(set(components[1][prediction]) - {0}), len(set(components[0][reference]) - {0})]
        missed, false = components[1].max() - found[0], components[0].max() - found[1]
        counts = metrics.count_components(*tensors(prediction, reference))
        assert counts.tolist() == [found[0], missed, false]
        total = 2 * found[0] + missed + false
        assert equal(metrics.detection_f1(counts), 2 * found[0] / total if total else float("nan"))


def test_centerline_dice_equals_its_definition_on_skeletons():
    from skimage.morphology import skeletonize

    for prediction, reference, _ in MASKS:
        counts = metrics.centerline_counts(*tensors(prediction, reference))
        if not prediction.any() and not reference.any():
            expected = float("nan")
        elif not prediction.any() or not reference.any():
            expected = 0.0
        else:
            lines = [set(map(tuple, np.argwhere(skeletonize(mask)))) for mask in (prediction, reference)]
            pixels = [set(map(tuple, np.argwhere(mask))) for mask in (prediction, reference)]
            right, found = len(lines[0] & pixels[1]) / len(lines[0]), len(lines[1] & pixels[0]) / len(lines[1])
            expected = 2 * right * found / (right + found) if right + found else 0.0
        assert equal(metrics.centerline_dice(counts), expected)


def test_a_thin_break_costs_centerline_dice_more_than_dice():
    reference = torch.zeros(60, 21)
    reference[:, 9:12] = 1
    broken, thin = reference.clone(), reference.clone()
    broken[20:40] = 0
    thin[:, [9, 11]] = 0
    score = lambda mask: float(metrics.centerline_dice(metrics.centerline_counts(mask, reference)))  # noqa: E731
    assert score(thin) > 0.97 > score(broken)


def test_scores_of_probabilities_equal_scikit_learns_at_the_files_precision():
    from sklearn.metrics import average_precision_score, roc_auc_score

    generator = np.random.default_rng(3)
    for _, reference, _ in MASKS:
        raw = np.clip(0.5 + 0.2 * (reference - 0.3) + 0.3 * generator.normal(size=reference.shape), 0, 1)
        probability = np.round(raw * 65535) / 65535
        histogram = metrics.probability_histogram(*tensors(probability, reference))
        r, p = reference.ravel(), probability.ravel()
        assert equal(metrics.roc_auc(histogram), roc_auc_score(r, p) if 0 < r.sum() < r.size else float("nan"))
        assert equal(metrics.average_precision(histogram), average_precision_score(r, p) if r.any() else float("nan"))
        edges = np.linspace(0, 1, 16)
        bins = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, 14)
        gaps = [abs(r[bins == b].sum() - p[bins == b].sum()) for b in range(15)]
        assert equal(metrics.calibration_error(histogram), sum(gaps) / r.size)


def saturated(reference, generator):
    """Probabilities of a sure network, in float32: nearly all below 2e-5 or above 1 - 2e-5."""
    logits = 18 * (reference - 0.5) * 2 + generator.normal(0, 14, reference.shape) - 6
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def pixels(generator, count=20000):
    return (generator.random(count) < 0.1).astype(np.uint8)


@pytest.mark.parametrize("kind", ["saturated", "all below 2e-5", "few values", "float64"])
def test_scores_of_real_numbers_equal_scikit_learns_without_rounding(kind):
    from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

    generator = np.random.default_rng(5)
    reference = pixels(generator)
    probability = saturated(reference, generator)
    if kind == "all below 2e-5":
        probability = probability * np.float32(1.9e-5)
    if kind == "few values":
        probability = generator.choice(np.float32([0.1, 0.1000001, 1 / 3, 0.7]), reference.size)
    if kind == "float64":
        probability = 1 - 1e-9 * (1 - probability.astype(np.float64))
    exact = metrics.probability_counts(*tensors(probability, reference))
    assert equal(metrics.roc_auc(exact), roc_auc_score(reference, probability), 1e-12)
    assert equal(metrics.average_precision(exact), average_precision_score(reference, probability), 1e-12)
    edges = np.linspace(0, 1, 16)
    bins = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, 14)
    gaps = [abs(reference[bins == b].sum() - probability[bins == b].sum(dtype=float)) for b in range(15)]
    assert equal(metrics.calibration_error(exact), sum(gaps) / reference.size, 1e-9)
    threshold, best = metrics.best_threshold(exact)
    assert equal(best, f1_score(reference, probability >= threshold), 1e-12)
    precision, recall, _ = precision_recall_curve(reference, probability)
    of_every_threshold = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert equal(best, of_every_threshold.max(), 1e-12)


def test_histograms_of_parts_add_up_to_that_of_the_whole_whatever_their_kind():
    generator = np.random.default_rng(6)
    reference = pixels(generator)
    probability = saturated(reference, generator)
    probability[:5000] = np.round(probability[:5000] * 65535) / 65535  # a part on the levels of our files
    parts = [
        metrics.probability_counts(*tensors(probability[p], reference[p])) for p in (slice(5000), slice(5000, None))
    ]
    assert isinstance(parts[0], torch.Tensor) and isinstance(parts[1], metrics.LevelCounts)
    whole = metrics.add_histograms(*parts)
    from sklearn.metrics import roc_auc_score

    stored = np.concatenate([np.round(probability[:5000].astype(float) * 65535) / 65535, probability[5000:]])
    assert equal(metrics.roc_auc(whole), roc_auc_score(reference, stored), 1e-12)
    assert int(whole.counts.sum()) == reference.size


def test_files_on_65536_levels_have_the_same_histogram_as_in_training():
    generator = np.random.default_rng(7)
    reference = pixels(generator)
    level = generator.integers(0, 65536, reference.size)
    for probability in (
        (level / 65535).astype(np.float32), level.astype(np.float32) * np.float32(1 / 65535), level / 65535
    ):  # fmt: skip
        found = metrics.probability_counts(*tensors(probability, reference))
        assert torch.equal(found, metrics.probability_histogram(*tensors(probability, reference)))


def test_too_many_levels_are_joined_at_a_stated_cost(monkeypatch):
    from sklearn.metrics import average_precision_score, roc_auc_score

    from r2seg.metrics import probabilities

    monkeypatch.setattr(probabilities, "MAX_LEVELS", 4000)
    generator = np.random.default_rng(8)
    reference = pixels(generator)
    probability = saturated(reference, generator)
    found = metrics.probability_counts(*tensors(probability, reference))
    assert len(found.levels) <= 4000
    assert int(found.counts.sum()) == reference.size
    assert equal(metrics.roc_auc(found), roc_auc_score(reference, probability), 6 / 4000)
    precision = average_precision_score(reference, probability)
    assert equal(metrics.average_precision(found), precision, 6 * math.log(20000) / 4000)
    assert equal(metrics.average_precision(found), precision, 2e-3)


def test_counts_at_a_threshold_are_those_of_the_thresholded_map():
    generator = np.random.default_rng(4)
    probability = np.round(generator.random((20, 20)) * 65535) / 65535
    reference = generator.random((20, 20)) < probability
    histogram = metrics.probability_histogram(*tensors(probability, reference))
    for threshold in (0.0, 0.25, 0.5, probability[3, 3], 0.99999, 1.0):
        expected = metrics.count_confusion(*tensors(probability >= threshold, reference), 1)
        assert int(metrics.counts_at(histogram, threshold).tp) == int(expected.tp)
        assert int(metrics.counts_at(histogram, threshold).fp) == int(expected.fp)
    candidates = np.unique(probability)
    scores = [
        float(metrics.dice(metrics.count_confusion(*tensors(probability >= t, reference), 1))) for t in candidates
    ]
    threshold, best = metrics.best_threshold(histogram)
    assert equal(best, max(scores))
    assert equal(metrics.dice(metrics.counts_at(histogram, threshold)), max(scores))


def test_logits_are_refused_as_probabilities():
    with pytest.raises(ValueError, match=r"a probability is -2: expected 0 to 1"):
        metrics.probability_histogram(torch.tensor([-2.0, 0.5]), torch.tensor([0, 1]))


def test_volumes_equal_simpleitks_physical_sizes():
    sitk = pytest.importorskip("SimpleITK")
    from r2seg.metrics.catalogue import FAMILIES, MEASURES, Pair

    def millilitres(mask, spacing):
        image = sitk.GetImageFromArray(mask.astype(np.uint8).T)
        image.SetSpacing([float(step) for step in spacing])
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(image)
        return shapes.GetPhysicalSize(1) / 1000 if shapes.HasLabel(1) else 0.0

    volumes = [pair for pair in MASKS if pair[0].ndim == 3]
    assert len(volumes) == NUM_SHAPES / 2
    for prediction, reference, spacing in volumes:
        maps = tensors(prediction.astype(np.uint8), reference.astype(np.uint8))
        evidence = FAMILIES["volumes"].evidence(Pair(*maps, 1, steps_mm=torch.diag(torch.from_numpy(spacing))))
        ours, theirs = millilitres(prediction, spacing), millilitres(reference, spacing)
        expected = {"volume_ml": ours, "reference_volume_ml": theirs, "volume_difference_ml": ours - theirs}
        for name, value in expected.items():
            assert float(MEASURES[name].score(evidence)[0]) == pytest.approx(value, abs=1e-6), name


def test_far_surfaces_have_the_same_distances_from_the_feature_transform(monkeypatch):
    """Both ways on all masks; turned and mirrored grids too, and a sheared one, which keeps the tree."""
    from r2seg.metrics import surfaces

    used = []
    transform = surfaces._far_distances
    monkeypatch.setattr(surfaces, "_far_distances", lambda *given: used.append(1) or transform(*given))
    for index, (prediction, reference, spacing) in enumerate(MASKS):
        turned = np.linalg.qr(np.random.default_rng(index).normal(size=(len(spacing),) * 2))[0]
        for steps in (np.diag(spacing), turned * spacing, turned * spacing @ np.diag([-1, *[1] * (len(spacing) - 1)])):
            found = []
            for voxels_per_point in (10**9, 1):  # always the transform; never
                monkeypatch.setattr(surfaces, "_VOXELS_PER_FAR_POINT", voxels_per_point)
                found.append(metrics.surface_distances(*tensors(prediction, reference), steps))
            for one, other in zip(vars(found[0]).values(), vars(found[1]).values(), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert len(used) > 100
    used.clear()
    monkeypatch.setattr(surfaces, "_VOXELS_PER_FAR_POINT", 10**9)
    metrics.surface_distances(*tensors(*MASKS[2][:2]), np.array([[1, 0.2], [0, 1]]))
    assert used == []


def test_far_surfaces_take_the_time_of_a_transform_instead_of_a_tree():
    """A ball in the middle of a larger one: to a k-d tree all points of the larger one look equally near."""
    import time

    from scipy.spatial import KDTree

    radius = np.linalg.norm(np.indices((130,) * 3) - 65, axis=0)
    start = time.process_time()
    distances = metrics.surface_distances(*tensors(radius < 63, radius < 29))
    ours = time.process_time() - start
    points = [np.argwhere(brute_surface(mask)) for mask in (radius < 63, radius < 29)]
    start = time.process_time()
    theirs, _ = KDTree(points[0]).query(points[1])
    assert ours < (time.process_time() - start) / 2
    np.testing.assert_allclose(distances.from_reference.numpy(), theirs, rtol=1e-12)


def test_the_centreline_of_the_box_around_a_mask_is_that_of_the_whole_volume(monkeypatch):
    from r2seg.metrics import structures

    def wide(array):
        return np.pad(array, 9)

    for prediction, reference, _ in MASKS:
        cropped = metrics.centerline_counts(*tensors(wide(prediction), wide(reference)))
        with monkeypatch.context() as patch:
            patch.setattr(structures, "_bounding_box", lambda mask: (slice(None),) * mask.ndim)
            whole = metrics.centerline_counts(*tensors(wide(prediction), wide(reference)))
        assert cropped.tolist() == whole.tolist()
