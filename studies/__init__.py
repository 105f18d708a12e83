"""Studies: storage, output folder, presets, search budget, claims, sampling, results and status."""

from studies.dashboard.artifacts import save_artifact
from studies.dashboard.notes import Progress, write_ended_note, write_running_note, write_study_note
from studies.export.results import (
    TRIAL_COLUMNS,
    csv_text,
    default_results_name,
    ended_records,
    records_beyond_retention,
    render_results,
    trial_rows,
)
from studies.export.study_file import StudyFile, check_import, import_study, read_study_file, study_file_text
from studies.sampling.distributions import suggest_all
from studies.sampling.pruning import PrunerName
from studies.sampling.samplers import SamplerName
from studies.status.disk_usage import DiskUsage, disk_usage
from studies.status.eta import RemainingTime, remaining_seconds, remaining_time
from studies.status.reader import find_trial, study_status
from studies.status.status import RowState, StatusRow, StudyStatus
from studies.storage.open import DATABASE_ERRORS, open_storage, storage_error_text, url_with_password
from studies.storage.optuna_private import report_again
from studies.storage.output_folder import OutputFolder
from studies.storage.postgresql import LeaseLost, is_connection_lost
from studies.storage.url import check_storage_url, default_storage_url, has_secret, mask_password, sqlite_path
from studies.study.claiming import HeldBack, claim_next_trial, count_claimable, find_held_back
from studies.study.invariants import StudyInvariants
from studies.study.lifecycle import (
    DEFAULT_STUDY_NAME,
    StudyNotStartedError,
    create_or_join_study,
    find_study,
    fix_threads,
    has_study,
    load_study,
    load_study_for_changes,
    request_stop,
    require_same_invariants,
    require_same_threads,
    save_targets,
    stop_token,
    study_invariants,
    study_targets,
    study_threads,
    version_notes,
)
from studies.study.presets import (
    enqueue_presets,
    fixed_space,
    refuse_changed_presets,
    retry_failed_trials,
    study_space,
)
from studies.study.search_budget import (
    SearchRequest,
    add_search_trials,
    check_search,
    count_unenqueued,
    earlier_study,
    require_same_search,
    search_budget,
    search_settings,
)
from studies.study.warm_start import EarlierStudy, source_note, study_prior
from studies.trials.claims import MAX_CRASHES, Claim
from studies.trials.leases import lock_of, record_stop, without_retries
from studies.trials.record import (
    Attempt,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    latest_records,
    own_records,
    read_record,
    refuse_foreign_folders,
)
from studies.trials.results import best_records, by_accuracy, metric_text, target_metrics, target_verdicts, targets_met
