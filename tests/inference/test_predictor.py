import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from cpfnet import preprocessing
from cpfnet.errors import CpfnetError, FormatError, InputRefused
from cpfnet.image import Image, Source
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.planning import Labels, MinMax, Percentiles, Scale, Window, ZScore
from tests import synthetic
from tests.inference.oracle import bright, make_model, oracle
from tests.predicting import messages_to

RNG = np.random.default_rng(0)
CT = {"channels": [{"name": "channel0", "low": -1000, "high": 1400}]}
RGB = {"channels": [{"name": "channel0", "low": 0, "high": 180}]}


def volume(array: np.ndarray, spacing=(1.0, 1.0, 1.0), **more) -> Image:
    """Axial slices along the first axis, mm in array order."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1
    return Image(array[None], affine, **more)


def predict(model, image, *, force=False, **options):
    return Predictor([model], PredictorOptions(backend=oracle, force=force)).predict(image, **options)


class TestRefusals:
    ct = RNG.normal(0, 300, (6, 40, 40)).clip(-1000, 1200)

    def model(self, intensity=None, fitted=CT, **more):
        return make_model(intensity=intensity or Window(), fitted=fitted, values=(1,), **more)

    @pytest.mark.parametrize(
        ("array", "figures"),
        [
            ((ct + 1000) / 2200, "-1000 … 1400"),  # normalised to 0…1
            (((ct + 1000) / 2200 * 255), "-1000 … 1400"),  # exported as 8 bits
            (ct * 3, "-1000 … 1400"),  # other units
            (np.full((6, 40, 40), -1000.0), "values -1000 … -1000"),  # only air
        ],
        ids=["unit", "8-bit", "scaled", "constant"],
    )
    def test_values_that_are_no_hu(self, array, figures):
        image = volume(array, source=Source(("scan.nii",), "nifti"))
        with pytest.raises(InputRefused, match=figures) as caught:
            predict(self.model(), image)
        assert "scan.nii" in str(caught.value)
        assert "--force" in str(caught.value)
        assert predict(self.model(), image, force=True).array.shape == (6, 40, 40)

    def test_hu_like_those_of_training_pass(self):
        predict(self.model(), volume(self.ct))
        predict(self.model(), volume(self.ct.clip(-200, 300)))

    def test_stored_values_without_their_intercept(self):
        with pytest.raises(InputRefused, match=r"values .* … 2\d\d\d"):
            predict(self.model(), volume(np.linspace(0, 2424, 6 * 40 * 40).reshape(6, 40, 40)))

    @pytest.mark.parametrize(("top", "refused"), [(1, True), (20, True), (60, False), (255, False), (65535, True)])
    def test_photographs_of_another_depth(self, top, refused):
        model = make_model(source="images", values=(1,), intensity=Scale(), fitted=RGB)
        image = Image(np.linspace(0, top, 1600).reshape(1, 40, 40))
        if refused:
            with pytest.raises(InputRefused, match=r"channel 'channel0': values .*fitted for 0 … 180"):
                predict(model, image)
        else:
            predict(model, image)

    @pytest.mark.parametrize("intensity", [ZScore(), MinMax(), Percentiles()], ids=lambda i: i.kind)
    def test_kinds_that_adapt_to_each_image_have_no_units_but_refuse_constants(self, intensity):
        predict(self.model(intensity), volume(self.ct * 1000))
        with pytest.raises(InputRefused, match="values 5 … 5"):
            predict(self.model(intensity), volume(np.full((6, 40, 40), 5)))

    @pytest.mark.parametrize("intensity", [ZScore(), MinMax(), Percentiles()], ids=lambda i: i.kind)
    def test_a_ct_is_no_mr_image(self, intensity):
        """Magnitudes are never negative, and whatever their scale, they lie where those of training lay."""
        seen = {"channels": [{"name": "channel0", "low": 3, "high": 626427}]}
        model = self.model(intensity, fitted=seen)
        predict(model, volume(np.abs(self.ct) + 5))
        with pytest.raises(InputRefused, match=r"fitted for 3 … 626427"):
            predict(model, volume(self.ct))
        with pytest.raises(InputRefused, match=r"fitted for 3 … 626427"):
            predict(model, volume(np.abs(self.ct) / 1e6))

    def test_spacing_far_from_training_along_the_networks_axes(self):
        fitted = CT | {"spacing_low": (2.0, 0.5, 0.5), "spacing_high": (3.0, 1.0, 1.0)}
        model = self.model(fitted=fitted, slices="axial")
        predict(model, volume(self.ct, (2.5, 0.7, 0.7)))
        predict(model, volume(self.ct, (4.0, 0.4, 1.4)))
        with pytest.raises(InputRefused, match=r"spacing 2\.5 × 0\.7 × 2 mm.*2 × 0\.5 × 0\.5 … 3 × 1 × 1 mm"):
            predict(model, volume(self.ct, (2.5, 0.7, 2.0)))
        # The same scan, stored in another order, is the same scan.
        turned = volume(self.ct, (2.5, 0.7, 0.7))
        predict(model, Image(turned.array.swapaxes(1, 3), turned.affine[:, [2, 1, 0, 3]]))

    @pytest.mark.parametrize("degrees", [0, 7, 12, 33])
    def test_limits_that_are_met_up_to_rounding_are_met(self, degrees):
        """1.5 times what training saw is allowed, oblique affines in float32 included; and values of its own range."""
        fitted = CT | {"spacing_low": (0.6, 0.6, 0.6), "spacing_high": (1.1, 1.1, 1.1)}
        model = self.model(fitted=fitted, slices="axial")
        for step, refused in ((1.1 * 1.5, False), (0.4, False), (1.652, True), (0.3995, True)):
            turned = synthetic.affine((step, 1.0, step), degrees=(degrees, 0, degrees)).astype(np.float32).astype(float)
            image = Image(self.ct[None], (np.diag((-1, -1, 1, 1)) @ turned)[:, [2, 1, 0, 3]])
            if refused:
                with pytest.raises(InputRefused, match="spacing"):
                    predict(model, image)
            else:
                predict(model, image)
        flat = {"channels": [{"name": "channel0", "low": 1 / 3, "high": 1 / 3}]}
        values = np.full((6, 40, 40), np.float32(1 / 3))
        predict(self.model(ZScore(), fitted=flat), volume(values))

    def test_no_spacing_where_training_had_one(self):
        fitted = CT | {"spacing_low": (2.0, 0.5, 0.5), "spacing_high": (3.0, 1.0, 1.0)}
        with pytest.raises(InputRefused, match="no spacing in mm"):
            predict(self.model(fitted=fitted), Image(self.ct[None]))

    def test_modality(self):
        model = self.model(modality="ct")
        predict(model, volume(self.ct, modality="ct"))
        predict(model, volume(self.ct))
        with pytest.raises(InputRefused, match=r"modality mr.*fitted for ct"):
            predict(model, volume(self.ct, modality="mr"))

    def test_everything_that_is_wrong_is_said_at_once(self):
        fitted = CT | {"spacing_low": (1.0, 1.0, 1.0), "spacing_high": (1.0, 1.0, 1.0)}
        with pytest.raises(InputRefused, match=r"modality mr.*channel 'channel0'.*spacing 9"):
            predict(self.model(fitted=fitted, modality="ct"), volume(self.ct * 9, (9, 1, 1), modality="mr"))

    def test_another_kind_of_image_is_refused_even_with_force(self):
        for image, words in [
            (Image(self.ct[None, 0]), "3 spatial axes"),
            (Image(np.stack([self.ct] * 2)), "has 2"),
        ]:
            with pytest.raises(InputRefused, match=words):
                predict(self.model(), image, force=True)

    @pytest.mark.parametrize("force", [False, True])
    def test_nan_is_refused_with_the_file(self, force):
        bad = self.ct.copy()
        bad[2, 3, 4] = np.nan
        with pytest.raises(FormatError, match=r"scan\.nii.*1 of 9600"):
            predict(self.model(), volume(bad, source=Source(("scan.nii",), "nifti")), force=force)


class TestEnsembles:
    _, mask = synthetic.phantom((8, 34, 36))

    def with_probability(self, value, **more):
        """A model that says ``value`` everywhere for its one class, and its backend."""
        model = make_model(values=(1,), slices="axial", **more)
        model.state = {"sharpness": torch.tensor([value])}
        return model

    @staticmethod
    def constant(model):
        value = float(model.state["sharpness"])
        logit = np.log(value / (1 - value))

        def backend(x):
            return np.stack([np.zeros_like(x[:, 0]), np.full_like(x[:, 0], logit)], axis=1)

        return backend

    @pytest.mark.parametrize(
        "spacings", [(None, None, None), (None, (1.0, 2.0, 0.7), None)], ids=["one grid", "several"]
    )
    def test_probabilities_are_averaged(self, spacings):
        models = [self.with_probability(p, spacing=s) for p, s in zip((0.9, 0.4, 0.5), spacings, strict=True)]
        predictor = Predictor(models, PredictorOptions(backend=self.constant))
        result = predictor.predict(volume(bright(self.mask, 3)), keep_probabilities=True)
        np.testing.assert_allclose(result.probabilities[1], 0.6, atol=1e-5)
        np.testing.assert_allclose(result.probabilities.sum(0), 1, atol=1e-5)
        assert (result.array == 1).all()

    def test_several_grids_still_line_up(self):
        models = [make_model(values=(1,), slices=s, spacing=(1.5, 1, 1)) for s in ("axial", "coronal", "sagittal")]
        index = np.indices((20, 40, 44)).transpose(1, 2, 3, 0)
        ball = (((index - (8, 24, 17)) * (2, 1, 1)) ** 2).sum(-1) < 10**2
        result = (
            Predictor(models, PredictorOptions(backend=oracle)).predict(volume(bright(ball, 1), (2.0, 1.0, 1.0))).array
            == 1
        )
        assert 2 * (result & ball).sum() / (result.sum() + ball.sum()) > 0.95
        np.testing.assert_allclose(np.argwhere(result).mean(0), np.argwhere(ball).mean(0), atol=0.2)

    def test_the_fitted_threshold_decides(self):
        for threshold, expected in ((0.5, 1), (0.7, 0)):
            model = self.with_probability(0.6, fitted={"threshold": threshold})
            result = Predictor([model], PredictorOptions(backend=self.constant)).predict(volume(bright(self.mask, 3)))
            assert (result.array == expected).all()

    def test_the_fitted_temperature_calibrates(self):
        model = self.with_probability(0.9, fitted={"temperature": 2.0})
        result = Predictor([model], PredictorOptions(backend=self.constant)).predict(
            volume(bright(self.mask, 3)), keep_probabilities=True
        )
        np.testing.assert_allclose(
            result.probabilities[1], 3 / (3 + 1), atol=1e-6
        )  # the odds of 9 : 1, to the power 1/2

    @pytest.mark.parametrize("spacings", [(None, None), (None, (1.0, 2.0, 0.7))], ids=["one grid", "several"])
    def test_several_models_share_what_was_fitted(self, spacings):
        fits = (
            {"temperature": 1.5, "threshold": (0.6,), "min_component_size": (10**6,)},
            {"temperature": 2.5, "threshold": 0.8, "min_component_size": (0,)},
        )
        models = [
            self.with_probability(p, fitted=f, spacing=s) for p, f, s in zip((0.85, 0.95), fits, spacings, strict=True)
        ]
        scan = volume(bright(self.mask, 3))
        result = Predictor(models, PredictorOptions(backend=self.constant)).predict(scan, keep_probabilities=True)
        np.testing.assert_allclose(result.probabilities[1], 3 / (3 + 1), atol=1e-5)  # calibrated once, by 2
        assert (result.array == 1).all()  # above 0.7, and dropped only where both would
        models[0].fitted = models[0].fitted.model_copy(update={"threshold": (0.74,)})
        assert (Predictor(models, PredictorOptions(backend=self.constant)).predict(scan).array == 0).all()

    @pytest.mark.parametrize(
        ("least", "look"), [(40, ""), (2401, "no class 1 found, and all 12 validation cases had it")]
    )
    def test_a_structure_whose_components_are_all_dropped_is_missing(self, least, look):
        """What is judged is the mask, not what the network found before components went."""
        mask = np.zeros((10, 40, 44), np.uint8)
        mask[2:8, 10:30, 10:30] = 1
        known = {"cases": 12, "lowest": 0.5, "found": ["class 1"], "factor": 1.0, "error": 0.05}
        model = make_model(values=(1,), fitted={"min_component_size": least, "quality": known})
        told = Predictor([model], PredictorOptions(backend=oracle)).predict(volume(bright(mask, 1)))
        assert (told.array == 1).any() == (not look)
        assert told.quality.look == look
        assert (told.quality.dice == 0) == bool(look)

    def test_progress_covers_all_models(self):
        models = [make_model(slices=s) for s in ("axial", "coronal", "axial")]
        shares = []
        Predictor(models, PredictorOptions(backend=oracle)).predict(
            volume(bright(self.mask, 3)), progress=shares.append
        )
        assert max(shares) == 1

    @pytest.mark.parametrize(
        ("other", "words"),
        [
            ({"values": (1, 2)}, "classes"),
            ({"values": (1, 2, 3), "source": "images"}, "sources"),
            ({"channels": 2}, "channels"),
        ],
    )
    def test_models_of_other_tasks_are_refused(self, other, words):
        with pytest.raises(CpfnetError, match=f"different {words}"):
            Predictor([make_model(), make_model(**other)], PredictorOptions(backend=oracle))

    def test_no_model_is_an_error(self):
        with pytest.raises(CpfnetError, match="no model"):
            Predictor([])


def sizes(mask: np.ndarray) -> list[int]:
    """Of connected components, corners included, counted by SciPy alone."""
    found, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    return sorted(ndimage.sum_labels(mask, found, range(1, count + 1)).astype(int).tolist())


def scene(height: int, width: int) -> np.ndarray:
    """The same picture in any size: a disc, and a speck of a twentieth of its area."""
    y, x = (
        (np.indices((height, width)) + 0.5) / np.reshape((height, width), (2, 1, 1)) * np.reshape((72, 96), (2, 1, 1))
    )
    return ((y - 30) ** 2 + (x - 34) ** 2 < 18**2) | ((y - 58) ** 2 + (x - 80) ** 2 < 4**2)


MM = {"spacing_low": (0.5, 0.5, 0.5), "spacing_high": (3.0, 3.0, 3.0)}


class TestMinComponentSize:
    """What is dropped is the same whatever grid a file has.

    Areas are those of the discs, volumes those of the boxes, by hand.
    """

    @pytest.mark.parametrize("size", [(72, 96), (36, 48), (144, 192), (576, 768), (288, 192), (71, 97), (96, 300)])
    @pytest.mark.parametrize("spatial", [{"longest": 96}, {"size": (72, 96)}, {"size": (40, 64)}])
    def test_photographs_of_any_size(self, size, spatial):
        """Pixels of the network's grid: of the disc 1,018 of 72 × 96, of the speck 50."""
        image = Image(bright(scene(*size), 1)[None])
        grid = preprocessing.trace_of(image, make_model(source="images", values=(1,), **spatial).plan).grid
        share = np.prod(grid) / (72 * 96)
        for least, kept in ((30, 2), (75, 1), (700, 1), (1300, 0)):
            model = make_model(source="images", values=(1,), fitted={"min_component_size": least * share}, **spatial)
            found = sizes(predict(model, image).array == 1)
            assert len(found) == kept
            areas = [pixels * np.prod(grid) / np.prod(size) for pixels in found]
            assert areas == pytest.approx([50 * share, 1018 * share][2 - kept :], rel=0.3)

    def test_photographs_that_keep_their_grid(self):
        image = Image(bright(scene(144, 192), 1)[None])
        speck, disc = sizes(scene(144, 192))
        for least, kept in ((speck, 2), (speck + 1, 1), (disc, 1), (disc + 1, 0)):
            model = make_model(source="images", values=(1,), fitted={"min_component_size": least})
            assert len(sizes(predict(model, image).array == 1)) == kept

    @pytest.mark.parametrize("mode", ["2d", "2.5d", "3d"])
    @pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 1.0, 2.0), (2.0, 0.5, 1.0), (0.25, 0.5, 0.5)])
    @pytest.mark.parametrize("grid", [None, (1.0, 1.0, 1.0), (1.0, 1.5, 1.5)], ids=str)
    def test_volumes_of_any_spacing(self, mode, spacing, grid):
        """mm³: a box of 8 × 20 × 20 mm, and one of 4 × 4 × 4, cut into other voxels.

        A network in 2-D, too, gives components in 3-D.
        """
        shape = np.int64((16, 48, 48) / np.array(spacing))
        mask = np.zeros(shape, np.uint8)
        for low, high in (((2, 4, 4), (10, 24, 24)), ((10, 36, 36), (14, 40, 40))):
            first, last = np.int64(low / np.array(spacing)), np.int64(high / np.array(spacing))
            mask[tuple(map(slice, first, last))] = 1
        voxel = float(np.prod(spacing))
        image = volume(bright(mask, 1), spacing)
        more = {"slices": "axial", "spacing": grid, "mode": mode, "neighbours": int(mode == "2.5d")}
        for least, kept in ((40, 2), (100, 1), (2000, 1), (5000, 0)):
            model = make_model(values=(1,), fitted=MM | {"min_component_size": least}, **more)
            found = [pixels * voxel for pixels in sizes(predict(model, image, force=True).array == 1)]
            assert len(found) == kept
            assert found == pytest.approx([64, 3200][2 - kept :], rel=0.35)

    def test_a_size_that_is_met_up_to_rounding_is_met(self):
        mask = np.zeros((6, 40, 40), np.uint8)
        mask[2:4, 10:13, 10:15] = 1
        for degrees, step in itertools.product((0, 7, 12), (0.7, 1 / 3, 1.1)):
            turned = synthetic.affine((step, step, 3 * step), degrees=(degrees, 0, 2 * degrees)).astype(np.float32)
            lps = (np.diag((-1, -1, 1, 1)) @ turned.astype(float))[:, [2, 1, 0, 3]]
            image = Image(bright(mask, 1)[None], lps)
            for least, kept in ((30 * 3 * step**3, 1), (30.5 * 3 * step**3, 0)):
                model = make_model(values=(1,), fitted=MM | {"min_component_size": least})
                assert len(sizes(predict(model, image, force=True).array == 1)) == kept

    def test_regions_have_a_size_each(self):
        regions = Labels(
            classes=[{"name": "whole", "values": [1, 2]}, {"name": "core", "values": [2]}], exclusive=False
        )
        mask = scene(144, 192)
        image = Image(np.where(mask, 200, 0).astype(np.uint8)[None])

        def everywhere(model):
            return lambda x: np.repeat(np.where(x > 0.5, 9, -9), 2, axis=1).astype(np.float32)

        for least, kept in (((0, 75), (2, 1)), ((75, 0), (1, 2)), ((1300, 75), (0, 1))):
            model = make_model(source="images", labels=regions, longest=96, fitted={"min_component_size": least})
            planes = Predictor([model], PredictorOptions(backend=everywhere)).predict(image, keep_probabilities=True)
            core = planes.array == 2
            assert len(sizes(core)) == kept[1]
            assert len(sizes((planes.array == 1) | core)) == max(kept)

    def test_the_plan_says_it_before_what_was_fitted(self):
        image = Image(bright(scene(144, 192), 1)[None])
        for chosen, kept in ((None, 0), (0, 2), (75, 1), ((75,), 1)):
            model = make_model(
                source="images",
                values=(1,),
                longest=96,
                inference={"min_component_size": chosen},
                fitted={"min_component_size": 5000},
            )
            assert len(sizes(predict(model, image).array == 1)) == kept

    def test_models_of_other_grids_keep_what_one_of_them_would(self):
        """75 of 72 × 96 pixels drop the speck, 75 of 144 × 192 do not: it has 200 of them."""
        models = [
            make_model(source="images", values=(1,), longest=longest, fitted={"min_component_size": 75})
            for longest in (96, 192)
        ]
        image = Image(bright(scene(288, 384), 1)[None])
        assert [len(sizes(predict(model, image).array == 1)) for model in models] == [1, 2]
        assert len(sizes(Predictor(models, PredictorOptions(backend=oracle)).predict(image).array == 1)) == 2

    def test_without_millimetres_no_size_in_mm3_is_applied_and_that_is_said(self):
        mask = np.zeros((8, 40, 40), np.uint8)
        mask[2:4, 10:13, 10:15] = 1
        model, said = make_model(values=(1,), fitted=MM | {"min_component_size": 500}), []
        with messages_to(said.append):
            found = predict(model, Image(bright(mask, 1)[None]), force=True)
        assert sizes(found.array == 1) == [30]
        assert "small components are kept: their least size is in mm³" in said[0]


@pytest.mark.parametrize(
    ("model", "tile", "words"),
    [
        ({}, 16, "too small"),
        ({}, (512, 8), "too small"),
        ({}, (64, 64, 64), "height and width"),
        ({"mode": "3d"}, (64, 64), "depth, height and width"),
    ],
)
def test_tiles_that_a_network_cannot_have_are_refused(model, tile, words):
    with pytest.raises(CpfnetError, match=words):
        Predictor([make_model(**model)], PredictorOptions(backend=oracle, tile=tile))


def test_one_size_is_for_all_axes_and_a_small_tile_is_said():
    said = []
    _, mask = synthetic.phantom((40, 60, 50))
    for model in (make_model(mode="3d"), make_model(slices="axial")):
        with messages_to(pytest.fail):
            predictor = Predictor([model], PredictorOptions(backend=oracle, tile=48, force=True))
            found = predictor.predict(Image(bright(mask, 3)[None], np.eye(4)))
        np.testing.assert_array_equal(found.array, mask)
    with messages_to(said.append):
        Predictor([make_model(patch=(64, 96))], PredictorOptions(backend=oracle, tile=64))
    assert said == ["The tile is smaller than the patches of training (64×96): expect worse masks"]


def test_values_of_the_data_set_come_out():
    _, mask = synthetic.phantom((60, 50))
    model = make_model(source="images", values=(255, "#ff0000", 40))
    result = predict(model, Image(bright(mask, 3)[None]))
    expected = np.array([0, 255, 0x1FF0000, 40])[mask]
    np.testing.assert_array_equal(result.array, expected)
