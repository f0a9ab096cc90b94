"""Citations: the papers that losses come from, as BibTeX."""

from __future__ import annotations

from collections.abc import Mapping


def _entry(kind: str, key: str, **fields: str) -> str:
    lines = ",\n".join(f"    {name} = {{{value}}}" for name, value in fields.items())
    return f"@{kind}{{{key},\n{lines}\n}}"


def _preprint(key: str, number: str, *, author: str, title: str, year: str) -> str:
    return _entry("misc", key, title=title, author=author, year=year, eprint=number, archiveprefix="arXiv")


SENTENCE_BERT = _entry(
    "inproceedings",
    "reimers-2019-sentence-bert",
    title="Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author="Reimers, Nils and Gurevych, Iryna",
    booktitle="Proceedings of EMNLP-IJCNLP 2019",
    year="2019",
    url="https://arxiv.org/abs/1908.10084",
)
MULTILINGUAL = _preprint(
    "reimers-2020-multilingual",
    "2004.09813",
    title="Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
    author="Reimers, Nils and Gurevych, Iryna",
    year="2020",
)
SMART_REPLY = _preprint(
    "henderson-2017-efficient",
    "1705.00652",
    title="Efficient Natural Language Response Suggestion for Smart Reply",
    author="Henderson, Matthew and Al-Rfou, Rami and Strope, Brian and Sung, Yun-hsuan and Lukacs, Laszlo and "
    "Guo, Ruiqi and Kumar, Sanjiv and Miklos, Balint and Kurzweil, Ray",
    year="2017",
)
GRADIENT_CACHE = _preprint(
    "gao-2021-scaling",
    "2101.06983",
    title="Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    author="Gao, Luyu and Zhang, Yunyi and Han, Jiawei and Callan, Jamie",
    year="2021",
)
MATRYOSHKA = _preprint(
    "kusupati-2022-matryoshka",
    "2205.13147",
    title="Matryoshka Representation Learning",
    author="Kusupati, Aditya and Bhatt, Gantavya and Rege, Aniket and Wallingford, Matthew and Sinha, Aditya and "
    "Ramanujan, Vivek and Howard-Snyder, William and Chen, Kaifeng and Kakade, Sham and Jain, Prateek and "
    "Farhadi, Ali",
    year="2022",
)
MATRYOSHKA_2D = _preprint(
    "li-2024-2d-matryoshka",
    "2402.14776",
    title="2D Matryoshka Sentence Embeddings",
    author="Li, Xianming and Li, Zongxi and Li, Jing and Xie, Haoran and Li, Qing",
    year="2024",
)
TRIPLETS = _preprint(
    "hermans-2017-defense",
    "1703.07737",
    title="In Defense of the Triplet Loss for Person Re-Identification",
    author="Hermans, Alexander and Beyer, Lucas and Leibe, Bastian",
    year="2017",
)
CONTRASTIVE = _entry(
    "inproceedings",
    "hadsell-2006-dimensionality",
    title="Dimensionality Reduction by Learning an Invariant Mapping",
    author="Hadsell, Raia and Chopra, Sumit and LeCun, Yann",
    booktitle="IEEE Conference on Computer Vision and Pattern Recognition (CVPR 2006)",
    year="2006",
    doi="10.1109/CVPR.2006.100",
)
CONTRASTIVE_TENSION = _entry(
    "inproceedings",
    "carlsson-2021-semantic",
    title="Semantic Re-tuning with Contrastive Tension",
    author="Carlsson, Fredrik and Gyllensten, Amaru Cuba and Gogoulou, Evangelia and Hellqvist, Erik and "
    "Sahlgren, Magnus",
    booktitle="International Conference on Learning Representations",
    year="2021",
    url="https://openreview.net/forum?id=Ov_sMNau-PF",
)
TSDAE = _preprint(
    "wang-2021-tsdae",
    "2104.06979",
    title="TSDAE: Using Transformer-based Sequential Denoising Auto-Encoder for Unsupervised Sentence Embedding "
    "Learning",
    author="Wang, Kexin and Reimers, Nils and Gurevych, Iryna",
    year="2021",
)
EMBED_DISTILL = _preprint(
    "kim-2023-embeddistill",
    "2301.12005",
    title="EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval",
    author="Kim, Seungyeon and Rawat, Ankit Singh and Zaheer, Manzil and Jayasumana, Sadeep and Sadhanala, "
    "Veeranjaneyulu and Jitkrittum, Wittawat and Menon, Aditya Krishna and Fergus, Rob and Kumar, Sanjiv",
    year="2023",
)
MARGIN_MSE = _preprint(
    "hofstaetter-2021-improving",
    "2010.02666",
    title="Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation",
    author='Hofst{\\"a}tter, Sebastian and Althammer, Sophia and Schr{\\"o}der, Michael and Sertkan, Mete and '
    "Hanbury, Allan",
    year="2021",
)
DISTILLED_RANKING = _preprint(
    "lin-2020-distilling",
    "2010.11386",
    title="Distilling Dense Representations for Ranking using Tightly-Coupled Teachers",
    author="Lin, Sheng-Chieh and Yang, Jheng-Hong and Lin, Jimmy",
    year="2020",
)
GIST = _preprint(
    "solatorio-2024-gistembed",
    "2402.16829",
    title="GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding Fine-tuning",
    author="Solatorio, Aivin V.",
    year="2024",
)
MEGA_BATCH = _entry(
    "inproceedings",
    "wieting-2018-paranmt",
    title="ParaNMT-50M: Pushing the Limits of Paraphrastic Sentence Embeddings with Millions of Machine "
    "Translations",
    author="Wieting, John and Gimpel, Kevin",
    booktitle="Proceedings of ACL 2018",
    year="2018",
    doi="10.18653/v1/P18-1042",
)
SPREAD_OUT = _preprint(
    "zhang-2017-spread-out",
    "1708.06320",
    title="Learning Spread-out Local Feature Descriptors",
    author="Zhang, Xu and Yu, Felix X. and Kumar, Sanjiv and Chang, Shih-Fu",
    year="2017",
)
COSENT = _entry(
    "article",
    "huang-2024-cosent",
    title="CoSENT: Consistent Sentence Embedding via Similarity Ranking",
    author="Huang, Xiang and Peng, Hao and Zou, Dongcheng and Liu, Zhiwei and Li, Jianxin and Liu, Kay and Wu, Jia "
    "and Su, Jianlin and Yu, Philip S.",
    journal="IEEE/ACM Transactions on Audio, Speech, and Language Processing",
    volume="32",
    year="2024",
    doi="10.1109/TASLP.2024.3402087",
)
ANGLE = _preprint(
    "li-2023-angle",
    "2309.12871",
    title="AnglE-optimized Text Embeddings",
    author="Li, Xianming and Li, Jing",
    year="2023",
)

_OF_LOSSES: Mapping[str, tuple[str, ...]] = {
    "AdaptiveLayerLoss": (MATRYOSHKA_2D,),
    "AnglELoss": (ANGLE,),
    "BatchAllTripletLoss": (TRIPLETS,),
    "BatchHardSoftMarginTripletLoss": (TRIPLETS,),
    "BatchHardTripletLoss": (TRIPLETS,),
    "BatchSemiHardTripletLoss": (TRIPLETS,),
    "CachedGISTEmbedLoss": (GIST, GRADIENT_CACHE),
    "CachedMultipleNegativesRankingLoss": (GRADIENT_CACHE, SMART_REPLY),
    "CachedMultipleNegativesSymmetricRankingLoss": (GRADIENT_CACHE, SMART_REPLY),
    "CoSENTLoss": (COSENT,),
    "ContrastiveLoss": (CONTRASTIVE,),
    "ContrastiveTensionLoss": (CONTRASTIVE_TENSION,),
    "ContrastiveTensionLossInBatchNegatives": (CONTRASTIVE_TENSION,),
    "CosineSimilarityLoss": (SENTENCE_BERT,),
    "DenoisingAutoEncoderLoss": (TSDAE,),
    "DistillKLDivLoss": (DISTILLED_RANKING,),
    "EmbedDistillLoss": (EMBED_DISTILL,),
    "GISTEmbedLoss": (GIST,),
    "GlobalOrthogonalRegularizationLoss": (SPREAD_OUT,),
    "MSELoss": (MULTILINGUAL,),
    "MarginMSELoss": (MARGIN_MSE,),
    "Matryoshka2dLoss": (MATRYOSHKA_2D, MATRYOSHKA),
    "MatryoshkaLoss": (MATRYOSHKA,),
    "MegaBatchMarginLoss": (MEGA_BATCH,),
    "MultipleNegativesRankingLoss": (SMART_REPLY,),
    "MultipleNegativesSymmetricRankingLoss": (SMART_REPLY,),
    "OnlineContrastiveLoss": (CONTRASTIVE,),
    "SoftmaxLoss": (SENTENCE_BERT,),
    "TripletLoss": (TRIPLETS,),
}
"""The name of a loss → its papers."""


def citation_of(loss_class: type) -> str:
    """The papers of a loss, or of the nearest class that it derives from; ``""`` if there are none."""
    name = next((cls.__name__ for cls in loss_class.__mro__ if cls.__name__ in _OF_LOSSES), "")
    return "\n\n".join(_OF_LOSSES.get(name, ()))
