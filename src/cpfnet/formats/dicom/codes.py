"""Coded names of structures: SNOMED CT concepts for common class names, and colours to show them in.

A DICOM segment has a category and a type (PS3.16, context groups 7150 and 7151). A Plan may name any; these are the
defaults, from the name of the class alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cpfnet.planning import Code

ANATOMY = Code(value="91723000", meaning="Anatomical Structure")
TISSUE = Code(value="85756007", meaning="Tissue")
CHANGE = Code(value="49755003", meaning="Morphologically Abnormal Structure")
SUBSTANCE = Code(value="91720002", meaning="Body Substance")

# One concept a line: value, meaning, and further words of class names that mean it. The last words of a name decide, as
# its noun is there ("lung vessel"); and what is abnormal takes precedence over the organ that it grows in ("GTV
# liver").
_CHANGES = """
108369006 Neoplasm | tumor | tumour | gtv | gtvp | gtvn | cancer | carcinoma | glioma
52988006 Lesion | plaques
95324001 Skin lesion
27925004 Nodule
4147007 Mass
367643001 Cyst
79654002 Edema | oedema
6574001 Necrosis | necrotic core
50960005 Hemorrhage | haemorrhage | bleeding
35566002 Hematoma | haematoma
41699000 Effusion
60046008 Pleural effusion
373945007 Pericardial effusion
128462008 Metastasis | metastases
396339007 Thrombus
1522000 plaque
12402003 Scar tissue | scar
56208002 Ulcer
"""
_ANATOMY = """
10200004 Liver | hepatic
78961009 Spleen
64033007 Kidney
39607008 Lung
31094006 Lobe of lung | lung lobe
45653009 Upper lobe of lung | lung upper lobe
90572001 Lower lobe of lung | lung lower lobe
72481006 Middle lobe of right lung | lung middle lobe
3120008 Pleura
44567001 Trachea
955009 Bronchus | bronchi
89187006 Airway structure | airway | airways
80891009 Heart
82471001 Left atrium | heart atrium left | left atrial
73829009 Right atrium | heart atrium right
87878005 Left ventricle | heart ventricle left
53085002 Right ventricle | heart ventricle right
49848007 Left Ventricle Myocardium | heart myocardium | left ventricular myocardium
76848001 Pericardium
59820001 Blood Vessel | vessel
15825003 Aorta
51114001 Artery | arteries
29092000 Vein
81040000 Pulmonary artery
122972007 Pulmonary vein
41801008 Coronary artery
69105007 Carotid Artery | carotid | common carotid artery
36765005 Subclavian artery
9454009 Subclavian vein
8887007 Brachiocephalic vein
12691009 brachiocephalic trunk
64131007 Inferior vena cava | ivc
48345005 Superior vena cava | svc
32764006 Portal vein | portal vein and splenic vein
35819009 Splenic vein
8993003 Hepatic vein
2841007 Renal artery
56400007 Renal vein
10293006 Iliac artery
244411005 Iliac vein | iliac vena
15776009 Pancreas
69695003 Stomach
32849002 Esophagus | oesophagus
28231008 Gallbladder | gall bladder
28273000 Bile duct
38848004 Duodenum
30315005 Small intestine | small bowel
71854001 Colon
34402009 Rectum
23451007 Adrenal gland | adrenal
69748006 Thyroid
89837001 Bladder | urinary bladder
87953007 Ureter
41216001 Prostate
64739004 Seminal Vesicle
35039007 Uterus
15497006 Ovary | ovaries
71252005 Cervix
78067005 Placenta
40689003 Testis
76752008 Breast
59441001 Lymph Node
12738006 Brain
113305005 Cerebellum
119238007 Brain Stem | brainstem
5366008 Hippocampus | hippocampal
4958002 Amygdala
42695009 Thalamus
11000004 Caudate Nucleus | caudate
89278009 Putamen
14738005 Globus Pallidus | pallidum
35764002 Brain ventricle | lateral ventricle
56329008 Pituitary
244453006 Optic chiasm | chiasm
18234004 optic nerve
2748008 Spinal cord
61853006 Vertebral canal | spinal canal
45289007 Parotid gland | parotid
54019009 Submandibular gland
4596009 Larynx
54066008 Pharynx
74262004 oral cavity
21974007 Tongue
38199008 Tooth | teeth
81745001 Eye | eyeball
5665001 Retina
81016008 Optic nerve head | optic disc | optic disk
67046006 Fovea centralis | fovea
68703001 Choroid of eye | choroid
78076003 Lens
28726007 Cornea
41296002 Iris
272673000 Bone
51282000 Vertebra | vertebrae
113197003 Rib
56873002 Sternum
51299004 Clavicle | clavicula
79601000 Scapula
85050009 Humerus
71341001 Femur
2812003 Femoral head
29836001 Hip
54735007 Sacrum
89546000 Skull
91609006 Mandible
74135004 Meniscus
5798000 Diaphragm
39937001 Skin
"""
_TISSUES = """
256674009 Fat | adipose tissue
91727004 Muscle | gluteus | iliopsoas | autochthon
309312004 Cartilage
389080008 White Matter
389081007 Gray Matter | grey matter
"""
_SUBSTANCES = """
65216001 Cerebrospinal Fluid | csf
"""


def _concepts(lines: str, category: Code) -> Iterator[tuple[str, tuple[Code, Code]]]:
    for line in lines.strip().splitlines():
        value, words = line.split(" ", 1)
        meaning, *others = words.split(" | ")
        for name in (meaning.casefold(), *others):
            yield name, (category, Code(value=value, meaning=meaning))


_ABNORMAL = dict(_concepts(_CHANGES, CHANGE))
_NORMAL = dict(
    pair
    for lines, category in ((_ANATOMY, ANATOMY), (_TISSUES, TISSUE), (_SUBSTANCES, SUBSTANCE))
    for pair in _concepts(lines, category)
)

COLOURS = ("#e15759", "#4e79a7", "#59a14f", "#f28e2b", "#b07aa1", "#edc948", "#76b7b2", "#ff9da7", "#9c755f", "#bab0ac")
"""For classes without their own colour, in the order of the Plan (Tableau's ten)."""


def code_for(name: str) -> tuple[Code, Code]:
    """Category and type for a class name; ``(Tissue, Tissue)`` where the name is not known.

    Case, numbers, ``_``, ``-`` and a plural ``s`` do not count: ``Kidney_L``, ``left kidneys`` and ``kidney-2`` are
    kidneys.
    """
    words = re.sub(r"[\W\d_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).casefold()
    for table in (_ABNORMAL, _NORMAL):
        matches = [
            (match.end(), len(known), known)
            for known in table
            for match in re.finditer(rf"\b{re.escape(known)}s?\b", words)
        ]
        if matches:
            return table[max(matches)[-1]]
    return TISSUE, TISSUE
