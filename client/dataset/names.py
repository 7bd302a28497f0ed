"""Whether a text looks like the name or the birth date of a person.

Names of files and header texts of a study should be pseudonyms. What is found here is a
suspicion, never a proof: the rules are coarse, in German and English, and say what they saw.
"""

import re
import unicodedata

DATE = re.compile(
    r"(?<!\d)(?:"
    r"(?:19|20)\d\d([-._]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])"  # 1962-03-14, 19620314
    r"|(?:0[1-9]|[12]\d|3[01])([-._]?)(?:0[1-9]|1[0-2])\2(?:19|20)\d\d"  # 14.03.1962, 14031962
    r")(?!\d)"
)
DICOM_NAME = re.compile(r"[^\W\d_]+\^+[^\W\d_]+")  # DICOM PS3.5, value representation PN
TITLED = re.compile(r"(?<![^\W_])(?:Herrn?|Frau|Mrs)[ ._-]+[^\W\d_]+")
TWO_WORDS = re.compile(
    r"(?<![^\W_])([A-ZÄÖÜ][a-zäöüßéèáàçñ]{2,})[ ,._-]+([A-ZÄÖÜ][a-zäöüßéèáàçñ]{2,})(?![^\W_])"
)
WORD = re.compile(r"[^\W\d_]{3,}")

# Capitalised words of studies, anatomy, software and scanners that stand beside each other.
VOCABULARY = frozenset(
    """
    adc affine anonymized anonymised anterior atlas axial baseline bias bids brain brats case
    cases clinical control contrast converted coronal corrected cropped data dataset decathlon
    defaced deface derived diffusion dixon dwi elastix extracted extraction fast fets field
    flair followup free freesurfer fsl gadolinium generated glioma gli group hardware head
    healthcare healthy hippocampus hospital image images initial institution intent label labels
    left lesion magnetic magnitude mask matlab mean medical meningioma metastasis mni mprage
    native new nifti nipype nnunet none normal normalised normalized oblique original part
    patient patients phantom phase philips posterior post pre prediction prisma probability
    processed python raw reference registered resampled reconstructed reoriented right sagittal
    scan scanner scans scikit segmentation series session siemens signa simpleitk site skull
    skyra slicer space spin standard statistic stripped study subject subjects system systems
    task template test testing thick time tissue toolkit tool train training transformed trio
    tumor tumour turbo unknown upenn validation value vector version vida visit volume warped
    weighted white without with world year
    """.split()  # noqa: SIM905 - as single quoted words nobody could read it
)

# Frequent given names that are no other word of the field; not Max, Mark, Grace, Art, Jan, Mai.
GIVEN_NAMES = frozenset(
    """
    ahmed alexander ali alice andrea andreas angela anita anja anke anna anne annette anton
    barbara beate bernd bernhard birgit brigitte carlos carmen carol caroline catherine charles
    charlotte christa christian christina christine christoph claudia cornelia daniel daniela
    david deborah dennis diana dieter dietmar donald doris dorothea dorothy eduard edward elena
    elisabeth elizabeth emily emma erich erika ernst eva fatima felix florian frances franz
    friedrich fritz gabriele george georg gerda gerhard gertrud gisela guenter guenther guido
    hannah hannelore hans harald heike heinrich heinz helen helena helga helmut herbert hermann
    hildegard holger horst ibrahim ilse inge ingeborg ingrid irene irmgard jacob james jana
    jason jennifer jens jessica joachim johann johanna johannes john jonas jonathan jorge joseph
    josef juan juergen julia julian jutta karen karin karl karsten katharina kathrin katja
    kenneth kerstin kevin klaus konrad kurt larry laura lena leonie linda lisa lothar ludwig
    luis lukas manfred manuela marcel marco marcus margaret margarete maria marianne marie
    marion markus marlene martha martin martina mary mathias matthias maurice mehmet melanie
    michael michaela michelle mohamed mohammed monika moritz mustafa nadine nancy natalie
    nicholas nicole nina norbert olga oliver olaf otto pamela patricia patrick paul paula peter
    petra philipp ralf rainer rebecca reinhard renate richard rita robert roland rolf ronald
    rosemarie rudolf ruth sabine samuel sandra sarah sebastian sharon silke silvia simone
    sofia sonja sophie stefan stefanie stephan stephen steven susan susanne sven svetlana sylvia
    tanja theodor thomas thorsten tobias torsten udo ulrich ulrike ursula uwe vanessa vera
    veronika viktor virginia volker walter waltraud werner wilhelm william wolfgang yvonne
    """.split()  # noqa: SIM905 - as single quoted words nobody could read it
)
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})


def person_in(text: str) -> str | None:
    """Return the part of a text that looks like somebody's name, or None."""
    text = unicodedata.normalize("NFC", text)  # macOS writes an umlaut in a file name as two signs
    for pattern in (DICOM_NAME, TITLED):
        if found := pattern.search(text):
            return found.group()
    for found in TWO_WORDS.finditer(text):
        if not {word.lower() for word in found.groups()} & VOCABULARY:
            return found.group()
    words = WORD.findall(text)
    return next((word for word in words if _plain(word) in GIVEN_NAMES), None)


def date_in(text: str) -> str | None:
    """Return the part of a text that looks like a day of the 20th or 21st century, or None."""
    found = DATE.search(text)
    return found.group() if found else None


def _plain(word: str) -> str:
    return word.lower().translate(UMLAUTS)
