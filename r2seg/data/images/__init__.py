"""Every file format in and out, geometry kept: pictures, volumes, label maps and probability maps.

Voxels are in the axis order of the file; nothing is reoriented, resampled or rescaled here (that is preprocessing.py). The
formats are NIfTI (.nii, .nii.gz, .img with its .hdr), NRRD, MetaImage, pictures (png, jpg, tif, bmp, gif, ppm, pgm, pbm, the last
three also gzipped), .npy and DICOM. How each is read and written is in formats/.

Where a format can be read in several ways:

- DICOM: a folder with the files of one series is a volume; a file alone is a picture or, of the multi-frame classes, a volume.
  RTSTRUCT and DICOM-SEG are labels, read on the grid of their image. docs/dicom.md says what is refused.
- NIfTI: the sform if its code is above 0, else the qform, else nibabel's default (that of Analyze). Affines are in millimetres:
  metres and microns are converted, unknown units are taken as millimetres. A file with two axes is a picture with an affine; with
  four axes the last one is channels; more are refused. RGB voxels are three channels.
- An opaque alpha channel is dropped; one that hides something is refused. A palette picture that is an image becomes RGB.
- A picture that asks to be turned or mirrored on display (EXIF orientation) is refused: whether its mask was drawn on the stored or
  on the displayed pixels cannot be known.
- Animations and TIFFs of several pages are refused: a stack of pages has no voxel size and no orientation.
- .npy holds (rows, columns) or (rows, columns, channels) with at most 16 channels; volumes need a format with geometry.
"""

from r2seg.data.formats import IMAGE_SUFFIXES, Grid, ImageError, SeriesChoice, files_of, split_suffix
from r2seg.data.formats.dicom_files import is_dicom_label
from r2seg.data.images.dicom_labels import grid_of_dicom_label
from r2seg.data.images.image import GridError, Image, check_same_grid, image_of, output_name, read_grid, read_image
from r2seg.data.images.label_maps import IGNORE, LabelMap, read_label_map, write_label_map
from r2seg.data.images.mask_values import CUT
from r2seg.data.images.overlapping import read_labels, write_overlapping
from r2seg.data.images.probabilities import probabilities_path, read_probabilities, write_probabilities

__all__ = [
    "CUT",
    "IGNORE",
    "IMAGE_SUFFIXES",
    "Grid",
    "GridError",
    "Image",
    "ImageError",
    "LabelMap",
    "SeriesChoice",
    "check_same_grid",
    "files_of",
    "grid_of_dicom_label",
    "image_of",
    "is_dicom_label",
    "output_name",
    "probabilities_path",
    "read_grid",
    "read_image",
    "read_label_map",
    "read_labels",
    "read_probabilities",
    "split_suffix",
    "write_label_map",
    "write_overlapping",
    "write_probabilities",
]
