"""How a search is kept: the study and its folder, presets, claims, suggestions, results and status."""

from __future__ import annotations

from studies.atomic_files import write_json, write_text
from studies.claims import MOST_DEATHS, Claim, claim_next, final_state
from studies.distributions import suggest_all, to_distribution
from studies.folder import OutputFolder, Owner
from studies.presets import (
    PresetState,
    enqueue_presets,
    preset_order,
    refuse_changes,
    retry_failed_presets,
    study_space,
)
from studies.pruning import PrunerName, Pruning
from studies.results import best_record, default_results_name, ended_records, records_not_kept, render_results
from studies.samplers import SamplerName
from studies.search import (
    SearchRequest,
    SearchSettings,
    ask_for_search,
    check_search,
    prepare_sampling,
    refuse_other_search,
    search_budget,
    search_settings,
    top_up,
    unenqueued_trials,
)
from studies.status import RowState, StatusRow, StudyStatus, study_status
from studies.storage import open_storage, open_storage_for_reading, storage_error_text
from studies.storage_url import check_storage_url, default_storage_url, mask_password
from studies.study import (
    DEFAULT_STUDY_NAME,
    create_or_join_study,
    find_study,
    keep_targets,
    load_study,
    study_targets,
    study_terms,
    version_notes,
)
from studies.targets import target_verdicts, targets_met
from studies.terms import StudyTerms
from studies.trial_record import (
    Attempt,
    BegunAfter,
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    latest_records,
    read_record,
    record_outcome,
    search_trial_name,
)
from studies.trial_view import find_trial

__all__ = [
    "DEFAULT_STUDY_NAME",
    "MOST_DEATHS",
    "Attempt",
    "BegunAfter",
    "Claim",
    "OutputFolder",
    "Owner",
    "PresetState",
    "PrunerName",
    "Pruning",
    "RowState",
    "SamplerName",
    "SearchRequest",
    "SearchSettings",
    "StatusRow",
    "StudyStatus",
    "StudyTerms",
    "TrialKind",
    "TrialOutcome",
    "TrialPhase",
    "TrialRecord",
    "WhyEnded",
    "ask_for_search",
    "best_record",
    "check_search",
    "check_storage_url",
    "claim_next",
    "create_or_join_study",
    "default_results_name",
    "default_storage_url",
    "ended_records",
    "enqueue_presets",
    "final_state",
    "find_study",
    "find_trial",
    "keep_targets",
    "latest_records",
    "load_study",
    "mask_password",
    "open_storage",
    "open_storage_for_reading",
    "prepare_sampling",
    "preset_order",
    "read_record",
    "record_outcome",
    "records_not_kept",
    "refuse_changes",
    "refuse_other_search",
    "render_results",
    "retry_failed_presets",
    "search_budget",
    "search_settings",
    "search_trial_name",
    "storage_error_text",
    "study_space",
    "study_status",
    "study_targets",
    "study_terms",
    "suggest_all",
    "target_verdicts",
    "targets_met",
    "to_distribution",
    "top_up",
    "unenqueued_trials",
    "version_notes",
    "write_json",
    "write_text",
]
