"""Words in file and folder names that tell what a file is: an image, a label map, a field of view, a second observer's labels.

Pure text; which files belong together is found in inventory.py.
"""

from __future__ import annotations

import re

IMAGE, LABEL, MASK, OBSERVER, LEFT_OUT = "image", "label", "mask", "observer", "left out"
# "mask" alone is a label map, or a field of view beside label maps.
MASK_OR_LABEL = "mask or label"

# Sequences of one examination, which are the channels of one image: BraTS, ISLES, prostate, PET/CT.
MODALITIES = (
    "t1", "t1n", "t1w", "t1c", "t1ce", "t1gd", "t2", "t2w", "t2f", "flair", "pd", "adc", "dwi", "swi",
    "ct", "cta", "cbct", "pet", "suv", "mr", "mri",
)  # fmt: skip

# The first that matches a whole word decides; in lower case.
_WORDS = (
    (LEFT_OUT, r"superpixels?|previews?|thumb(nail)?s?|overlays?|pred(iction)?s?|prob(abilit(y|ies))?s?|heatmaps?|qc"),
    (
        OBSERVER,
        r"(2nd|second|3rd|third)\w*|(manual|observer|rater|reader|annotator|grader|expert|ho|gt|seg|label)[2-9]",
    ),
    (MASK, r"fovs?|fov_?masks?|fieldofviews?"),
    (MASK_OR_LABEL, r"masks?"),
    (
        LABEL,
        r"\w*labels?(tr|ts|map|maps)?1?|\w*seg(s|1|mentations?|mentationclass)?|\w*(groundtruths?|truths?)|gts?1?"
        r"|annot(ation|ated)?s?|manuals?1?|1st\w*|first|targets?|contours?|\w+masks?1?|delineations?|rtstruct|rois?",
    ),
    (
        IMAGE,
        r"\w*(images?|imgs?|pics?|photos?|pictures?)(tr|ts)?|inputs?|scans?|vols?|volumes?|raw|orig(inals?)?|fundus|slices?|frames?|"
        + "|".join(MODALITIES),
    ),
)
_ROLES = tuple((role, re.compile(pattern)) for role, pattern in _WORDS)
# A name with several such words is what the first of these says: "Image_01L_1stHO" is a label map.
_PRECEDENCE = (LEFT_OUT, OBSERVER, MASK, LABEL, MASK_OR_LABEL, IMAGE)

# Folders of a part of the data -> the part
PARTS = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "ts": "test",
    "holdout": "test",
}

_WORD = re.compile(r"[^\W_]+")


def words_of(name: str) -> list[re.Match[str]]:
    """The runs of letters and digits of a name, with their places."""
    return list(_WORD.finditer(name))


def role_of_word(word: str) -> str | None:
    """What a word says about its file, or None: "lungmask" is a label, "01L" nothing."""
    return next((role for role, pattern in _ROLES if pattern.fullmatch(word.lower())), None)


def role_of_words(words: list[str]) -> str | None:
    """What the words of one name say together, or None."""
    found = {role_of_word(word) for word in words}
    if "fieldofview" in "".join(words).lower():
        found.add(MASK)
    return next((role for role in _PRECEDENCE if role in found), None)


def role_of_folder(name: str) -> str | None:
    """What a folder's name says about the files in it, or None."""
    return role_of_words([match[0] for match in words_of(name)])


def affix_of(stem: str) -> tuple[str | None, str]:
    """What the beginning or end of a file's name says about it, and that part: ("label", "_lungmask") of "X_lungmask".

    Only the first word and the last three count: what is between them is the case's own name.
    """
    words = words_of(stem)
    ends = [index for index in range(len(words)) if index == 0 or index >= len(words) - 3]
    role = role_of_words([words[index][0] for index in ends])
    if role is None:
        return None, ""
    telling = [index for index in ends if _says(words[index][0], role)]
    if not telling:  # field_of_view
        return role, ""
    first, last = telling[0], telling[-1]
    if last == 0 and len(words) > 1:
        return role, stem[: words[1].start()]
    start = words[first if first > 0 else last]
    return role, stem[words[words.index(start) - 1].end() :] if start is not words[0] else stem


def _says(word: str, role: str) -> bool:
    return role_of_word(word) == role


def part_of_folders(folders: tuple[str, ...]) -> str | None:
    """The part of a split that folders name, such as "test" of ("test", "images"); None if they name none."""
    for name in folders:
        words = [match[0].lower() for match in words_of(name)]
        for word in words:
            if word in PARTS:
                return PARTS[word]
    return None
