#!/usr/bin/env bash
# Trains, tests, visualises and compares the experiments of the table below; run again, it skips what is finished.
set -u -o pipefail # no -e: an experiment that fails must not stop the others

# name | model type | scales
EXPERIMENT_TABLE=(
    "baseline_single_scale  | single_scale         |"
    "multiscale_3scales     | multiscale_attention | 0.25,0.5,0.75"
    "ablation_2scales_coarse| multiscale_attention | 0.25,0.5"
    "ablation_2scales_fine  | multiscale_attention | 0.5,0.75"
    "ablation_4scales       | multiscale_attention | 0.2,0.4,0.6,0.8"
    # The baseline's network is deeper than a branch, and more branches are also more weights, so a gap between it and
    # the rows above would not show what the scales add. These two tell scales from capacity: one branch at the
    # baseline's scale is that branch without any fusion, and three branches at that one scale have as many weights
    # as multiscale_3scales without its scales.
    "control_1branch        | multiscale_attention | 0.5"
    "control_equal_capacity | multiscale_attention | 0.5,0.5,0.5"
)

HERE=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
GPU_ID=${GPU_ID:-0}
DATAROOT=${DATAROOT:-./datasets/ForenSynths_train_val}
TESTROOT=${TESTROOT:-./datasets/Generalization_Test}
CLASSES=${CLASSES-car,cat,chair,horse}
RECIPE=${RECIPE:-}
TRAINING=() # flags with their variables; a recipe's own values stand in for those that are not set
for pair in "batch_size BATCH_SIZE" "lr LR" "niter EPOCHS" "delr_freq DELR_FREQ"; do
    variable=${pair#* }
    [[ -z $RECIPE || -n ${!variable:-} ]] && TRAINING+=("$pair")
done
BATCH_SIZE=${BATCH_SIZE:-32}
LR=${LR:-0.0002}
EPOCHS=${EPOCHS:-50}
DELR_FREQ=${DELR_FREQ:-10}
SEED=${SEED:-100}
SEEDS=${SEEDS:-1}
PRECISION=${PRECISION:-auto}
NUM_SAMPLES=${NUM_SAMPLES:-100}
OUTPUT_DIR=${OUTPUT_DIR:-.}
PYTHON=${PYTHON:-python}
read -r -d '' -a EXTRA_TRAIN <<<"${EXTRA_TRAIN_ARGS:-}"
read -r -d '' -a EXTRA_TEST <<<"${EXTRA_TEST_ARGS:-}"
read -r -d '' -a EXTRA_VISUALIZE <<<"${EXTRA_VISUALIZE_ARGS:-}"

usage() {
    cat <<END
usage: [VARIABLE=value ...] run_multiscale_experiments.sh [--dry-run] [--help]

Train, test and visualise every experiment, then compare their results. Run again, it skips what is finished, goes on
with a training that was interrupted, and runs anew what has other settings now (for a trial, set another OUTPUT_DIR).

  --dry-run   print every command, and which would be skipped; run nothing, write nothing

Variables, with their values here:
  GPU_ID=$GPU_ID (which card; -1 = CPU)
  DATAROOT=$DATAROOT (holds train/ and val/)
  TESTROOT=$TESTROOT (one generator, a suite, or a folder of suites)
  CLASSES=$CLASSES (to train on; empty = all)
  BATCH_SIZE=$BATCH_SIZE LR=$LR EPOCHS=$EPOCHS DELR_FREQ=$DELR_FREQ SEED=$SEED PRECISION=$PRECISION (see train.py --help)
  RECIPE=$RECIPE (see train.py --list_recipes; with one, BATCH_SIZE, LR, EPOCHS and DELR_FREQ count in training only if you set them)
  SEEDS=$SEEDS (runs of each experiment, with the seeds SEED, SEED+1 and so on; of several, the comparison gives mean +- std.
    The first has the experiment's name, the others are called NAME_seed101 and so on; what is finished stays when SEEDS
    is raised)
  NUM_SAMPLES=$NUM_SAMPLES (images per generator to visualise)
  OUTPUT_DIR=$OUTPUT_DIR (gets checkpoints/, results/, visualizations/ and .experiments/: logs, and what is finished)
  PYTHON=$PYTHON (the interpreter)
  EXTRA_TRAIN_ARGS=${EXTRA_TRAIN_ARGS:-} EXTRA_TEST_ARGS=${EXTRA_TEST_ARGS:-} EXTRA_VISUALIZE_ARGS=${EXTRA_VISUALIZE_ARGS:-}
    (further flags of the three scripts, split at spaces)
  EXPERIMENTS=${EXPERIMENTS:-} (some of these, separated by spaces; empty = all)
$(printf '    %s\n' "${NAMES[@]}")

Examples:
  GPU_ID=1 DATAROOT=/data/train_val TESTROOT=/data/test EXPERIMENTS="baseline_single_scale multiscale_3scales" \\
      ./run_multiscale_experiments.sh
  SEEDS=3 ./run_multiscale_experiments.sh --dry-run
  RECIPE=robust DATAROOT=/data/train_val CLASSES= EXPERIMENTS="multiscale_3scales control_equal_capacity" \\
      ./run_multiscale_experiments.sh
END
}

refuse() {
    echo "error: $*" >&2
    exit 2
}

interrupted() { # STATUS: 130 for Ctrl-C, 143 for SIGTERM
    printf '\ninterrupted; start it again with the same settings and it goes on from here\n' >&2
    exit "$1"
}

# A run folder is exactly NAME_YYYY_MM_DD_HH_MM_SS: the name alone may also begin the names of other runs.
D='[0-9]' STAMP_TO_COME='20??_??_??_??_??_??' # in a plan: a pattern that the shell expands once the run is there
STAMP=$D$D$D${D}_$D${D}_$D${D}_$D${D}_$D${D}_$D$D

quoted() { # the words as one line that can be pasted into a shell
    local line escaped
    printf -v line '%q ' "$@"
    printf -v escaped '%q' "$STAMP_TO_COME"
    line=${line//"$escaped"/$STAMP_TO_COME}
    line=${line//'\,'/,} # a comma means something only within braces, and those are escaped
    printf '%s\n' "${line% }"
}

newest_run() { # NAME
    local folder newest=''
    # shellcheck disable=SC2231  # the stamp is a pattern
    for folder in "$CHECKPOINTS/$1"_$STAMP/; do
        [[ -d $folder ]] && newest=${folder%/}
    done
    printf '%s\n' "$newest"
}

newest_result() { # RUN_FOLDER BEGUN: what test.py wrote since; it may take another name rather than overwrite results
    local file newest=''
    for file in "$RESULTS/${1##*/}"_*/metrics.json; do
        [[ -f $file && ! $2 -nt $file && ! $newest -nt $file ]] && grep -q '"npr-results/2"' -- "$file" && newest=$file
    done
    printf '%s\n' "$newest"
}

read_marker() { # FILE: a command and a path, into MARKED_COMMAND and MARKED_PATH
    MARKED_COMMAND='' MARKED_PATH=''
    [[ -f $1 ]] && { IFS= read -r MARKED_COMMAND && IFS= read -r MARKED_PATH; } <"$1"
}

# Run COMMAND unless the marker NAME.KIND says that this very command is finished. FOLDER is where it writes, for a test
# the run folder that is tested. OUTPUT becomes the checkpoint, the results, the pictures, the tables that it made.
# MODE is run, plan (print the command) or look (neither; fail if it is not finished).
stage() { # NAME KIND FOLDER COMMAND...
    local name=$1 kind=$2 folder=$3 marker="$STATE/$1.$2" line before=''
    shift 3
    line=$(quoted "$@")
    read_marker "$marker"
    OUTPUT=$MARKED_PATH
    # the comparison takes seconds, and a test may have written the same files anew
    if [[ $MARKED_COMMAND == "$line" && -e $OUTPUT && $kind != compare ]]; then
        [[ $MODE == look ]] || printf '\n# %s: %s is finished, skipped\n# %s\n' "$name" "$kind" "$line"
        return 0
    fi
    [[ $MODE == look ]] && return 1
    if [[ $kind == train ]]; then
        before=$(newest_run "$name") folder=$CHECKPOINTS/${name}_$STAMP_TO_COME
        read_marker "$marker.begun"
        if [[ $MARKED_COMMAND == "$line" && $MARKED_PATH != "$before" ]]; then # it got as far as a folder of its own
            set -- "$@" --continue_train
            folder=$before before=$MARKED_PATH
        fi
    fi
    if [[ $MODE == run ]]; then
        run_stage "$@"
        return
    fi
    printf '\n# %s: %s\n%s\n' "$name" "$kind" "$(quoted "$@")"
    case $kind in
        train) OUTPUT=$folder/model_epoch_last.pth ;;
        test) OUTPUT=$RESULTS/${folder##*/}_$(basename -- "$TESTROOT")/metrics.json ;;
    esac
}

run_stage() { # COMMAND...; the rest are variables of stage
    local status=0
    rm -f -- "$marker"
    printf '%s\n%s\n' "$line" "$before" >"$marker.begun"
    printf '\n=== %s: %s (%s)\n%s\n' "$name" "$kind" "$(date '+%F %T')" "$(quoted "$@")" | tee -a "$marker.log"
    "$@" 2>&1 | tee -i -a "$marker.log" || status=$? # -i: Ctrl-C must not take away the command's last words
    ((status == 130 || status == 143)) && interrupted "$status"
    case $kind in
        train) folder=$(newest_run "$name") OUTPUT=$folder/model_epoch_last.pth ;;
        test) OUTPUT=$(newest_result "$folder" "$marker.begun") ;;
        visualise) OUTPUT=$folder ;;
        compare) OUTPUT=$folder/comparison.md ;;
    esac
    if ((status == 0)) && [[ -e $OUTPUT && $folder != "$before" ]]; then
        printf '%s\n%s\n' "$line" "$OUTPUT" >"$marker"
        rm -f -- "$marker.begun"
        return 0
    fi
    ((status == 0)) && status='0 without its output'
    FAILED+=("$name: $kind, exit status $status, see $marker.log")
    echo "FAILED ${FAILED[-1]}" >&2
    return 1
}

run_experiment() { # NAME MODEL_TYPE SCALES SEED: one run
    local name=$1 checkpoint pair variable train=("$PYTHON" "$HERE/train.py" --name "$1" --model_type "$2")
    [[ -n $3 ]] && train+=(--npr_scales "$3")
    train+=(--dataroot "$DATAROOT")
    [[ -n $CLASSES ]] && train+=(--classes "$CLASSES")
    [[ -n $RECIPE ]] && train+=(--recipe "$RECIPE")
    for pair in "${TRAINING[@]}"; do
        variable=${pair#* }
        train+=("--${pair% *}" "${!variable}")
    done
    train+=(--seed "$4"
        --precision "$PRECISION" --checkpoints_dir "$CHECKPOINTS" --gpu_ids "$DEVICE" "${EXTRA_TRAIN[@]}")
    stage "$name" train "" "${train[@]}" || return
    checkpoint=$OUTPUT
    stage "$name" test "${checkpoint%/*}" "$PYTHON" "$HERE/test.py" --model_path "$checkpoint" --dataroot "$TESTROOT" \
        --batch_size "$BATCH_SIZE" --results_dir "$RESULTS" --gpu_ids "$DEVICE" "${EXTRA_TEST[@]}" && TESTED+=("$OUTPUT")
    [[ $2 == single_scale ]] && return
    stage "$name" visualise "$PICTURES/$name" "$PYTHON" "$HERE/visualize_attention.py" --model_path "$checkpoint" \
        --dataroot "$TESTROOT" --output_dir "$PICTURES/$name" --num_samples "$NUM_SAMPLES" --save_npr_maps \
        --gpu_id "$DEVICE" "${EXTRA_VISUALIZE[@]}"
}

NAMES=()
for row in "${EXPERIMENT_TABLE[@]}"; do
    IFS='| ' read -r name _ <<<"$row"
    NAMES+=("$name")
done

MODE=run
for argument in "$@"; do
    case $argument in
        --dry-run) MODE=plan ;;
        -h | --help) usage && exit 0 ;;
        *) refuse "unknown argument $argument: expected --dry-run or --help" ;;
    esac
done
read -r -d '' -a SELECTED <<<"${EXPERIMENTS:-${NAMES[*]}}"
for name in "${SELECTED[@]}"; do
    [[ " ${NAMES[*]} " == *" $name "* ]] || refuse "EXPERIMENTS: no experiment is called $name; there are ${NAMES[*]}"
done
[[ $SEED =~ ^[0-9]{1,10}$ ]] || refuse "SEED=$SEED: no such seed; give a whole number from 0 up"
[[ $SEEDS =~ ^[1-9][0-9]{0,2}$ ]] || refuse "SEEDS=$SEEDS: no such number of runs; give a whole number from 1 to 999"
((10#$SEED + SEEDS <= 2 ** 32)) || refuse "SEED=$SEED: too large; SEED + SEEDS may not exceed 4294967296"

CHECKPOINTS=$OUTPUT_DIR/checkpoints RESULTS=$OUTPUT_DIR/results PICTURES=$OUTPUT_DIR/visualizations
STATE=$OUTPUT_DIR/.experiments COMPARISON=$RESULTS/comparison
TESTED=() FAILED=() DEVICE=0 # the one card that CUDA_VISIBLE_DEVICES leaves is always number 0
[[ $GPU_ID == -1 ]] && DEVICE=-1
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # spinning threads slow each other down on a CPU that is not idle
export CUDA_VISIBLE_DEVICES=$GPU_ID PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [[ $MODE == plan ]]; then
    printf 'export CUDA_VISIBLE_DEVICES=%q PYTHONPATH=%q\n' "$CUDA_VISIBLE_DEVICES" "$PYTHONPATH"
else
    [[ -d $DATAROOT ]] || refuse "DATAROOT=$DATAROOT: no such folder; give the folder that holds train/ and val/"
    [[ -d $TESTROOT ]] || refuse "TESTROOT=$TESTROOT: no such folder; give the folder of test images"
    command -v -- "$PYTHON" >/dev/null || refuse "PYTHON=$PYTHON: no such command; give a Python interpreter"
    mkdir -p -- "$STATE" 2>/dev/null || refuse "OUTPUT_DIR=$OUTPUT_DIR: cannot be written; give a folder that can"
    trap 'interrupted 130' INT
    trap 'interrupted 143' TERM
fi

mode=$MODE
for row in "${EXPERIMENT_TABLE[@]}"; do
    IFS='| ' read -r name model_type scales <<<"$row"
    MODE=look # an experiment that is left out this time is still compared if it is finished
    [[ " ${SELECTED[*]} " == *" $name "* ]] && MODE=$mode
    for ((i = 0; i < SEEDS; i++)); do
        run=$name seed=$SEED # the first keeps the plain name: more SEEDS later must not train it anew
        ((i > 0)) && seed=$((10#$SEED + i)) && run=${name}_seed$seed
        run_experiment "$run" "$model_type" "$scales" "$seed"
    done
done

MODE=$mode
if ((${#TESTED[@]} > 1)); then
    [[ ${TESTED[0]} == "$RESULTS/${NAMES[0]}_"* ]] || printf '\n# %s has no results: the first is the baseline\n' "${NAMES[0]}"
    # -P: a folder called tools in the caller's directory must not be taken for this one
    stage comparison compare "$COMPARISON" "$PYTHON" -P -m tools.compare_results "${TESTED[@]}" --output "$COMPARISON"
else
    printf '\n# no comparison: it takes the results of two runs\n'
fi
printf '\n# results:    %s\n# pictures:   %s\n# comparison: %s\n# logs:       %s\n' "$RESULTS" "$PICTURES" "$COMPARISON" "$STATE"
((${#FAILED[@]} == 0)) && exit 0
printf '\n%s stage(s) failed; start it again with the same settings to retry:\n' "${#FAILED[@]}" >&2
printf '  %s\n' "${FAILED[@]}" >&2
exit 1
