"""Affine pre-alignment with SimpleITK."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..volumes.grid import LPS, Array, Volume
from ..volumes.itk import import_simpleitk, to_simpleitk


def align_affine(fixed: Volume, moving: Volume, seed: int = 0) -> Array:
    """The affine map from fixed to moving points, both in RAS+ mm: a (4, 4) matrix.

    Mattes mutual information at three resolutions, first rigid, then all twelve parameters,
    from aligned centres of mass. The result is exactly the same for the same seed.
    Raises InputError if SimpleITK is missing or the images cannot be aligned.
    """
    sitk = import_simpleitk("affine alignment")
    target, source = to_simpleitk(fixed), to_simpleitk(moving)
    start = sitk.CenteredTransformInitializer(
        target,
        source,
        sitk.Euler3DTransform(),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )
    rigid = sitk.Euler3DTransform(start)
    run(sitk, target, source, rigid, seed)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(rigid.GetCenter())
    affine.SetMatrix(rigid.GetMatrix())
    affine.SetTranslation(rigid.GetTranslation())
    run(sitk, target, source, affine, seed)
    linear = np.array(affine.GetMatrix()).reshape(3, 3)
    centre = np.array(affine.GetCenter())
    out = np.eye(4)
    out[:3, :3] = LPS @ linear @ LPS
    out[:3, 3] = LPS @ (np.array(affine.GetTranslation()) + centre - linear @ centre)
    return out


def run(sitk: Any, target: Any, source: Any, transform: Any, seed: int) -> None:
    """Optimise the transform in place."""
    process = sitk.ProcessObject
    threads = process.GetGlobalDefaultNumberOfThreads()
    # One thread: sums have a fixed order, so a second run gives the same bytes. Must be set before
    # the method is created.
    process.SetGlobalDefaultNumberOfThreads(1)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    # SimpleITK's sampling rate is relative to each level's own grid.
    method.SetMetricSamplingPercentagePerLevel([1.0, 0.3, 0.05], seed=seed + 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200, gradientMagnitudeTolerance=1e-6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(False)
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(target, source)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"affine alignment failed: {reason}") from error
    finally:
        process.SetGlobalDefaultNumberOfThreads(threads)
