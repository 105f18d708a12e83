"""How a search is kept: the study and its folder, presets, claims, suggestions, results and status."""

from __future__ import annotations

from studies.dashboard.artifacts import ArtifactFolder, artifact_store, keep_artifact, trial_artifacts
from studies.dashboard.notes import Progress, write_ended_note, write_running_note, write_study_note
from studies.export.results_json import (
    best_record,
    best_records,
    default_results_name,
    ended_records,
    records_not_kept,
    render_results,
)
from studies.export.trials_csv import TRIAL_COLUMNS, csv_text, trial_rows
from studies.sampling.distributions import suggest_all, to_distribution
from studies.sampling.pruning import PrunerName, Pruning
from studies.sampling.samplers import SamplerName
from studies.status.disk_usage import DiskUse, disk_usage
from studies.status.eta import TimeLeft, seconds_left, time_left
from studies.status.find_trial import find_trial
from studies.status.reader import study_status
from studies.status.status import RowState, StatusRow, StudyStatus
from studies.storage.atomic_files import write_json, write_text
from studies.storage.open import open_storage, open_storage_for_reading, storage_error_text
from studies.storage.optuna_private import report_again
from studies.storage.output_folder import OutputFolder, Owner
from studies.storage.postgresql import LeaseLost, is_connection_lost
from studies.storage.url import check_storage_url, default_storage_url, mask_password
from studies.study.invariants import StudyTerms
from studies.study.lifecycle import (
    DEFAULT_STUDY_NAME,
    create_or_join_study,
    find_study,
    keep_targets,
    load_study,
    load_study_for_changes,
    refuse_other_terms,
    study_targets,
    study_terms,
    version_notes,
)
from studies.study.presets import (
    PresetState,
    enqueue_presets,
    preset_order,
    refuse_changes,
    retry_failed_presets,
    study_space,
)
from studies.study.search_budget import (
    SearchRequest,
    SearchSettings,
    ask_for_search,
    check_search,
    claim_of_budget,
    prepare_sampling,
    refuse_other_search,
    search_budget,
    search_settings,
    top_up,
    unenqueued_trials,
)
from studies.study.stop_requests import ask_to_stop, stop_token
from studies.trials.claims import DEATHS_TO_BE_CAREFUL, MOST_DEATHS, Claim, claim_next, final_state, unclaimed_trials
from studies.trials.leases import lock_of, note_stop, without_waiting
from studies.trials.record import (
    Attempt,
    BegunAfter,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    read_record,
    record_outcome,
    search_trial_name,
)
from studies.trials.records import latest_records, own_records
from studies.trials.targets import target_figures, target_verdicts, targets_met

__all__ = [
    "DEATHS_TO_BE_CAREFUL",
    "DEFAULT_STUDY_NAME",
    "MOST_DEATHS",
    "TRIAL_COLUMNS",
    "ArtifactFolder",
    "Attempt",
    "BegunAfter",
    "Claim",
    "DiskUse",
    "LeaseLost",
    "OutputFolder",
    "Owner",
    "PresetState",
    "Progress",
    "PrunerName",
    "Pruning",
    "RowState",
    "SamplerName",
    "SearchRequest",
    "SearchSettings",
    "StatusRow",
    "StudyStatus",
    "StudyTerms",
    "TimeLeft",
    "TrialKind",
    "TrialOutcome",
    "TrialPhase",
    "TrialRecord",
    "WhyEnded",
    "artifact_store",
    "ask_for_search",
    "ask_to_stop",
    "best_record",
    "best_records",
    "check_search",
    "check_storage_url",
    "claim_next",
    "claim_of_budget",
    "create_or_join_study",
    "csv_text",
    "default_results_name",
    "default_storage_url",
    "disk_usage",
    "ended_records",
    "enqueue_presets",
    "final_state",
    "find_study",
    "find_trial",
    "is_connection_lost",
    "keep_artifact",
    "keep_targets",
    "latest_records",
    "load_study",
    "load_study_for_changes",
    "lock_of",
    "mask_password",
    "note_stop",
    "open_storage",
    "open_storage_for_reading",
    "own_records",
    "prepare_sampling",
    "preset_order",
    "read_record",
    "record_outcome",
    "records_not_kept",
    "refuse_changes",
    "refuse_other_search",
    "refuse_other_terms",
    "render_results",
    "report_again",
    "retry_failed_presets",
    "search_budget",
    "search_settings",
    "search_trial_name",
    "seconds_left",
    "stop_token",
    "storage_error_text",
    "study_space",
    "study_status",
    "study_targets",
    "study_terms",
    "suggest_all",
    "target_figures",
    "target_verdicts",
    "targets_met",
    "time_left",
    "to_distribution",
    "top_up",
    "trial_artifacts",
    "trial_rows",
    "unclaimed_trials",
    "unenqueued_trials",
    "version_notes",
    "without_waiting",
    "write_ended_note",
    "write_json",
    "write_running_note",
    "write_study_note",
    "write_text",
]
