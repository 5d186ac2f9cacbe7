#!/usr/bin/env bash
# Train, test, visualise and compare experiments; run again, it skips what is finished and resumes what is not.
set -u -o pipefail # no -e: an experiment that fails must not stop the others

TABLE="
baseline_single_scale   single_scale
multiscale_3scales      multiscale_attention 0.25,0.5,0.75
ablation_2scales_coarse multiscale_attention 0.25,0.5
ablation_2scales_fine   multiscale_attention 0.5,0.75
ablation_4scales        multiscale_attention 0.2,0.4,0.6,0.8
control_1branch         multiscale_attention 0.5
control_equal_capacity  multiscale_attention 0.5,0.5,0.5" # the controls tell scales from capacity
NAMES=$(awk '{printf "%s ", $1}' <<<"$TABLE")
HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
GPU_ID=${GPU_ID:-0} DATAROOT=${DATAROOT:-./datasets/ForenSynths_train_val} CLASSES=${CLASSES-car,cat,chair,horse}
TESTROOT=${TESTROOT:-./datasets/Generalization_Test} RECIPE=${RECIPE:-} SEED=${SEED:-100} SEEDS=${SEEDS:-1}
PRECISION=${PRECISION:-auto} NUM_SAMPLES=${NUM_SAMPLES:-100} OUTPUT_DIR=${OUTPUT_DIR:-.} PYTHON=${PYTHON:-python}
SETTINGS=() # of training; with a recipe, its own values stand in for variables that are not set
[[ $RECIPE && -z ${BATCH_SIZE:-} ]] || SETTINGS+=(--batch_size "${BATCH_SIZE:-32}")
[[ $RECIPE && -z ${LR:-} ]] || SETTINGS+=(--lr "${LR:-0.0002}")
[[ $RECIPE && -z ${EPOCHS:-} ]] || SETTINGS+=(--niter "${EPOCHS:-50}")
[[ $RECIPE && -z ${DELR_FREQ:-} ]] || SETTINGS+=(--delr_freq "${DELR_FREQ:-10}")
read -r -d '' -a EXTRA_TRAIN <<<"${EXTRA_TRAIN_ARGS:-}"
read -r -d '' -a EXTRA_TEST <<<"${EXTRA_TEST_ARGS:-}"
read -r -d '' -a EXTRA_VISUALIZE <<<"${EXTRA_VISUALIZE_ARGS:-}"

usage() {
    cat <<END
usage: [VARIABLE=value ...] run_multiscale_experiments.sh [--dry-run] [--help]

Train, test and visualise every experiment, then compare their results. Run again, it skips what is finished and
resumes a training that was interrupted. Other settings need another OUTPUT_DIR. --dry-run prints every command.

Variables, with their values here:
  GPU_ID=$GPU_ID (which card; -1 = CPU)   PYTHON=$PYTHON (the interpreter)
  DATAROOT=$DATAROOT (holds train/ and val/)   CLASSES=$CLASSES (to train on; empty = all)
  TESTROOT=$TESTROOT (one generator, a suite, or a folder of suites)
  BATCH_SIZE=${BATCH_SIZE:-32} LR=${LR:-0.0002} EPOCHS=${EPOCHS:-50} DELR_FREQ=${DELR_FREQ:-10} PRECISION=$PRECISION (train.py --help)
  RECIPE=$RECIPE (train.py --list_recipes; its values hold unless you set one of BATCH_SIZE, LR, EPOCHS, DELR_FREQ)
  SEED=$SEED SEEDS=$SEEDS (runs per experiment: NAME with SEED, NAME_seed101 with the next, ...; compared by mean and std)
  NUM_SAMPLES=$NUM_SAMPLES (images per generator to visualise)
  OUTPUT_DIR=$OUTPUT_DIR (gets checkpoints/, results/, visualizations/ and, with the logs, .experiments/)
  EXTRA_TRAIN_ARGS=${EXTRA_TRAIN_ARGS:-} EXTRA_TEST_ARGS=${EXTRA_TEST_ARGS:-} EXTRA_VISUALIZE_ARGS=${EXTRA_VISUALIZE_ARGS:-} (more flags, split at spaces)
  EXPERIMENTS=${EXPERIMENTS:-} (some of these; empty = all)
    ${NAMES% }

Examples:
  GPU_ID=1 DATAROOT=/data/train_val EXPERIMENTS="baseline_single_scale multiscale_3scales" ./run_multiscale_experiments.sh
  RECIPE=robust SEEDS=3 ./run_multiscale_experiments.sh --dry-run
END
}

refuse() { echo "error: $*" >&2; exit 2; }
interrupted() { printf '\ninterrupted; run the same command again to resume\n' >&2; exit "$1"; }

quoted() { # the words as one line for a shell, as Python's shlex.join writes them into opt.txt
    local LC_ALL=C word line=''
    for word; do
        [[ $word && $word != *[!a-zA-Z0-9_@%+=:,./-]* ]] || word="'${word//\'/\'\"\'\"\'}'"
        line+="$word "
    done
    printf '%s\n' "${line% }"
}

# A run folder is exactly NAME_YYYY_MM_DD_HH_MM_SS: the name alone may also begin the names of other runs.
D='[0-9]' TO_COME='20??_??_??_??_??_??' # in a plan: the shell expands it once the run is there
newest_run() { compgen -G "$CHECKPOINTS_GLOB/$1_$D$D$D${D}_$D${D}_$D${D}_$D${D}_$D${D}_$D$D" | sort | tail -n 1; }

recorded() { # FOLDER COMMAND...: the folder's opt.txt begins with this command
    local first=''
    [[ -f $1/opt.txt ]] && IFS= read -r first <"$1/opt.txt"
    [[ $first == "$(quoted "${@:2}")" ]]
}

find_result() { # RUN_FOLDER: RESULT becomes its newest metrics.json for this TESTROOT
    local file
    for file in "$RESULTS/${1##*/}_$TESTNAME"*/metrics.json; do
        [[ -f $file && ! $RESULT -nt $file ]] && RESULT=$file
    done
}

other_settings() { # FILE that records them: an error before anything runs, else nothing to compare
    [[ $MODE == check ]] && refuse "OUTPUT_DIR=$OUTPUT_DIR: $1 records other settings; set another OUTPUT_DIR"
    RESULT=''
}

stage() { # NAME KIND COMMAND...: run it with a log, or print it for a plan
    local title="$1: $2" log="$LOGS/$1.$2.log" status=0 line
    line=$(quoted "$PYTHON" "${@:3}")
    [[ $MODE == plan ]] && printf '\n# %s\n%s\n' "$title" "${line//"$TO_COME"/\'$TO_COME\'}" && return
    printf '\n=== %s (%s)\n%s\n' "$title" "$(date '+%F %T')" "$line" | tee -a "$log"
    "$PYTHON" "${@:3}" 2>&1 | tee -i -a "$log" || status=$? # -i: keep the command's last words after Ctrl-C
    ((status == 130 || status == 143)) && interrupted "$status"
    ((status == 0)) || { FAILED+=("$title, exit status $status, see $log") && echo "FAILED ${FAILED[-1]}" >&2 && false; }
}

experiment() { # MODE NAME SEED MODEL_TYPE [SCALES]; MODE: check the settings, run, plan, or look for its RESULT
    local MODE=$1 name=$2 folder more=() settings train visualise
    train=("$HERE/train.py" --name "$name" --model_type "$4" ${5:+--npr_scales "$5"} --dataroot "$DATAROOT"
        ${CLASSES:+--classes "$CLASSES"} ${RECIPE:+--recipe "$RECIPE"} "${SETTINGS[@]}" --seed "$3"
        --precision "$PRECISION" --checkpoints_dir "$CHECKPOINTS" --gpu_ids "$DEVICE" "${EXTRA_TRAIN[@]}")
    settings=(--batch_size "${BATCH_SIZE:-32}" --gpu_ids "$DEVICE" "${EXTRA_TEST[@]}")
    folder=$(newest_run "$name") RESULT=''
    if [[ -s $folder/opt.txt ]]; then
        recorded "$folder" "${train[@]}" || { other_settings "$folder/opt.txt" && return; }
        find_result "$folder"
        more=(--continue_train)
        [[ ! $RESULT ]] || grep -qF -- "$(quoted "${settings[@]}")\"" "$RESULT" || other_settings "$RESULT"
    fi
    [[ $MODE == check || $MODE == look ]] && return
    if [[ $RESULT ]]; then
        printf '\n# %s: train and test are finished, skipped\n' "$name"
    else
        stage "$name" train "${train[@]}" "${more[@]}" || return
        [[ $MODE == run ]] && folder=$(newest_run "$name")
        folder=${folder:-$CHECKPOINTS/${name}_$TO_COME} RESULT="$RESULTS/${folder##*/}_$TESTNAME/metrics.json"
        stage "$name" test "$HERE/test.py" --model_path "$folder/model_epoch_last.pth" --dataroot "$TESTROOT" \
            --results_dir "$RESULTS" "${settings[@]}" || RESULT=''
    fi
    visualise=("$HERE/visualize_attention.py" --model_path "$folder/model_epoch_last.pth" --dataroot "$TESTROOT" --output_dir
        "$PICTURES/$name" --num_samples "$NUM_SAMPLES" --save_npr_maps --gpu_id "$DEVICE" "${EXTRA_VISUALIZE[@]}")
    [[ $4 == single_scale ]] && return
    recorded "$PICTURES/$name" "${visualise[@]}" && printf '\n# %s: visualise is finished, skipped\n' "$name" && return
    stage "$name" visualise "${visualise[@]}"
}

each_run() { # MODE: all runs, those of experiments that are not selected in the mode look
    local name rest mode i
    TESTED=()
    while read -r name rest; do
        mode=look && [[ " ${SELECTED[*]} " == *" $name "* ]] && mode=$1
        for ((i = 0; i < SEEDS; i++)); do # the first keeps the plain name, so that SEEDS may be raised later
            # shellcheck disable=SC2086  # type and scales are words
            experiment "$mode" "$name$( ((i)) && echo "_seed$((10#$SEED + i))")" $((10#$SEED + i)) $rest </dev/null
            [[ $RESULT ]] && TESTED+=("$RESULT")
        done
    done <<<"${TABLE#$'\n'}"
}

MODE=run
case ${1:-} in
    '') ;;
    --dry-run) MODE=plan ;;
    -h | --help) usage && exit 0 ;;
    *) refuse "unknown argument $1: expected --dry-run or --help" ;;
esac
read -r -d '' -a SELECTED <<<"${EXPERIMENTS:-$NAMES}"
for name in "${SELECTED[@]}"; do
    [[ " $NAMES" == *" $name "* ]] || refuse "EXPERIMENTS: no experiment is called $name; there are $NAMES"
done
[[ $SEED =~ ^[0-9]{1,9}$ ]] || refuse "SEED=$SEED: not a seed; set a whole number from 0 to 999999999"
[[ $SEEDS =~ ^[1-9][0-9]{0,2}$ ]] || refuse "SEEDS=$SEEDS: not a number of runs; set a whole number from 1 to 999"
CHECKPOINTS=$OUTPUT_DIR/checkpoints RESULTS=$OUTPUT_DIR/results PICTURES=$OUTPUT_DIR/visualizations LOGS=$OUTPUT_DIR/.experiments
CHECKPOINTS_GLOB=${CHECKPOINTS//[\[\]*?\\]/\\&} FAILED=() DEVICE=0 # the one card that CUDA_VISIBLE_DEVICES leaves is always number 0
TESTNAME=$(cd -- "$TESTROOT" 2>/dev/null && pwd || printf '%s' "${TESTROOT%/}") && TESTNAME=${TESTNAME##*/}
[[ $GPU_ID == -1 ]] && DEVICE=-1
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # spinning threads slow each other down on a CPU that is not idle
export CUDA_VISIBLE_DEVICES=$GPU_ID PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
each_run check
if [[ $MODE == plan ]]; then
    printf 'export CUDA_VISIBLE_DEVICES=%q PYTHONPATH=%q\n' "$CUDA_VISIBLE_DEVICES" "$PYTHONPATH"
else
    [[ -d $DATAROOT ]] || refuse "DATAROOT=$DATAROOT: no such folder; set the folder that holds train/ and val/"
    [[ -d $TESTROOT ]] || refuse "TESTROOT=$TESTROOT: no such folder; set the folder of test images"
    command -v -- "$PYTHON" >/dev/null || refuse "PYTHON=$PYTHON: no such command; set a Python interpreter"
    mkdir -p -- "$LOGS" 2>/dev/null || refuse "OUTPUT_DIR=$OUTPUT_DIR: cannot be written; set a folder that can"
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
fi
each_run "$MODE"
if ((${#TESTED[@]} > 1)); then # -P: a folder called tools in the caller's directory must not be taken for this one
    stage comparison compare -P -m tools.compare_results "${TESTED[@]}" --output "$RESULTS/comparison"
else
    printf '\n# no comparison: it takes the results of two runs\n'
fi
printf '\n# results, comparison/: %s\n# plots: %s\n# logs: %s\n' "$RESULTS" "$PICTURES" "$LOGS"
((${#FAILED[@]} == 0)) || printf '\nFAILED %s; run the same command again to retry\n' "${FAILED[@]}" >&2
exit $((${#FAILED[@]} > 0))
