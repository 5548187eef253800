"""A head on embeddings of text: find documentation of the same module.

python examples/head_on_text.py [EPOCHS]

The embeddings are TF-IDF and a singular value decomposition of docstrings of the standard library;
take those of any model in their place.
"""

import importlib
import inspect
import sys

import kinfold  # isort: skip
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

modules = "argparse ast asyncio collections concurrent.futures configparser csv ctypes datetime "
modules += "decimal difflib email.message fractions ftplib functools heapq http.client imaplib "
modules += "inspect json logging mailbox multiprocessing optparse os pathlib pdb pickle random re "
modules += "shutil smtplib socket sqlite3 ssl statistics string subprocess tarfile tempfile "
modules += "textwrap threading tkinter turtle typing unittest.mock urllib.request uuid zipfile"
texts, labels = [], []
for name in modules.split():
    try:
        module = importlib.import_module(name)
    except ImportError:
        continue
    for _, value in inspect.getmembers(module):
        of_methods = inspect.getmembers(value) if inspect.isclass(value) else []
        for _, one in [("", value), *of_methods]:
            said = inspect.getdoc(one) if callable(one) else None
            if said and len(said) > 150 and str(getattr(one, "__module__", "")).startswith(name):
                texts.append(said)
                labels.append(name)
texts, first = np.unique(texts, return_index=True)
classes, y = np.unique(np.array(labels)[first], return_inverse=True)
steps = TfidfVectorizer(sublinear_tf=True, min_df=2), TruncatedSVD(128, random_state=0)
x = make_pipeline(*steps).fit_transform(texts).astype("float32")
seen = y % 3 > 0  # two thirds of the modules to train on, the others to find
model = kinfold.encoders.vector_head(128, 128)
model.compile("adam", loss=kinfold.losses.SupConLoss(temperature=0.1))
batches = kinfold.batches.ClassBalancedBatches(
    x[seen], y[seen], classes_per_batch=8, examples_per_class=4, batches_per_epoch=30
)
raw = kinfold.metrics.retrieval_metrics(x[~seen], y[~seen])
model.fit(batches, epochs=int(sys.argv[1]) if len(sys.argv) > 1 else 10, verbose=2)
trained = kinfold.metrics.retrieval_metrics(model.predict(x[~seen], verbose=0), y[~seen])
print(f"{len(texts)} texts of {len(classes)} modules")
for name in raw:
    print(f"{name} {raw[name]:.3f} -> {trained[name]:.3f}")
