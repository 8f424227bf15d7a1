#!/usr/bin/env bash
# Run small studies on one GPU, several runs at once: `bash docs/gpu_studies.sh WEIGHTS [KEY=VALUE …]`.
#
# WEIGHTS is the folder of resnet56-4bfd9763.th; the keys are added to every run (data.root=…). Needs the extra joblib and
# some 14 CPU cores. Runs go to outputs/study/, what they say to outputs/study/*.log. Stopped, the same command goes on.
# docs/collect_study.py then makes the lines of docs/studies/*.csv.
set -u
[ -f "${1:-}/resnet56-4bfd9763.th" ] || { echo "usage: bash docs/gpu_studies.sh WEIGHTS [KEY=VALUE …]" >&2; exit 2; }
weights="model.teacher_weights=$1/resnet56-4bfd9763.th"
shift
always=(trainer.enable_progress_bar=false trainer.accelerator=gpu "$@")
export OMP_NUM_THREADS=1
mkdir -p outputs/study

sweep() { # NAME RUNS_AT_ONCE KEY=VALUE …
    local name=$1 count=$2 status
    shift 2
    python -m kd_lightning.train -m hydra/launcher=joblib "hydra.launcher.n_jobs=$count" "$@" "${always[@]}" \
        > "outputs/study/$name.log" 2>&1
    status=$?
    echo "$name: $([ $status = 0 ] && echo finished || echo "status $status, see outputs/study/$name.log")"
}

teacher_of() { # RUN, finished: prints the folder of its teacher, and fails unless there is exactly one
    python - "$1" << 'END'
import os, sys
from pathlib import Path
from kd_lightning import runs
[weights] = runs.read(Path(sys.argv[1])).metrics["teacher"]["weights"]
print(os.path.normpath(os.path.join(sys.argv[1], os.path.dirname(weights["relative"]))))
END
}

few=(experiment=cifar10_few_labels "$weights")
own=(experiment=cifar10_teachers model.teacher=resnet20 model.teacher_weights=auto model.teacher_normalize=null
    teacher_stage.max_epochs=60 hydra.sweep.dir=outputs/study/own_teacher_resnet8)
logits=(experiment=cifar10_teachers "$weights" 'hydra.sweep.subdir=${hydra.runtime.choices.loss}_${seed}')

( # what T and alpha do, and the other methods of logits; the baseline of both is `alone`, below
    sweep temperature 4 experiment=cifar10_temperature "$weights"
    sweep logits 4 "${logits[@]}" loss=dist,nkd,wsld,mlld,kd_std,kd_adaptive,kd_only \
        hydra.sweep.dir=outputs/study/logits_resnet8
    # their ramps are shorter, as the training has eight epochs
    sweep logits_ramps 4 "${logits[@]}" loss=dkd,dkd_std,rld loss.alpha.epochs=2 \
        hydra.sweep.dir=outputs/study/logits_resnet8
) &
( # few labels: a larger student, and the honest teacher of the same 4,500 labels
    sweep few_resnet20 3 "${few[@]}" model.student=resnet20 seed=0,1,2,3,4,5
    sweep few_resnet20_ce 3 "${few[@]}" model.student=resnet20 seed=0,1,2,3,4,5 loss=ce trainer.max_epochs=150
    sweep same_labels 3 experiment=cifar10_few_labels model.teacher=resnet20 model.teacher_normalize=null \
        model.teacher_weights=outputs/study/few_labels_resnet20/ce_0 'hydra.sweep.subdir=same_labels_${seed}'
) &
( # the same few images for both, and four times the epochs
    sweep few_images 4 "${few[@]}" data.label_fraction=null data.train_size=4500 trainer.max_epochs=150 \
        loss=ce,kd_cifar hydra.sweep.dir=outputs/study/few_images_resnet8
    sweep long 4 "${logits[@]}" trainer.max_epochs=32 loss=ce,kd_cifar hydra.sweep.dir=outputs/study/long_resnet8
) &
( # a teacher of one's own that is sure of its training images: as it is, calibrated, stopped early
    sweep own 2 "${own[@]}" 'hydra.sweep.subdir=own_${seed}'
    sweep calibrated 2 "${own[@]}" model.teacher_calibration=temperature 'hydra.sweep.subdir=calibrated_${seed}'
    sweep alone 2 "${own[@]}" loss=ce 'hydra.sweep.subdir=ce_${seed}'
    teacher=$(teacher_of outputs/study/own_teacher_resnet8/own_0 2> outputs/study/early.log) ||
        { echo "early: own_0 names no teacher, see outputs/study/early.log" >&2; exit 1; }
    sweep early 2 "${own[@]}" "model.teacher_weights=$teacher@15" 'hydra.sweep.subdir=early_${seed}'
) &
wait
