"""Ask a student of text, from a run or an exported file: python sentence.py outputs/train/RUN "a film that moves"."""

import sys

import kd_lightning

sentences = sys.argv[2:]
answer = kd_lightning.load(sys.argv[1])(sentences)
for sentence, label, probabilities in zip(sentences, answer.labels, answer.probabilities, strict=True):
    print(f"{probabilities.max():.1%}  {label}  {sentence}")
