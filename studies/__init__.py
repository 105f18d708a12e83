"""How a search is kept: the study and its folder, presets, claims, suggestions, results and status."""

from __future__ import annotations

from studies.atomic_files import write_json, write_text
from studies.claims import Claim, claim_next, final_state
from studies.distributions import suggest_all, to_distribution
from studies.folder import OutputFolder, Owner
from studies.presets import PresetState, enqueue_presets, preset_order, study_space
from studies.results import best_record, default_results_name, ended_records, render_results
from studies.status import RowState, StatusRow, StudyStatus, study_status
from studies.storage import open_storage, open_storage_for_reading, storage_error_text
from studies.storage_url import check_storage_url, default_storage_url, mask_password
from studies.study import (
    DEFAULT_STUDY_NAME,
    create_or_join_study,
    load_study,
    study_terms,
    version_notes,
)
from studies.terms import StudyTerms
from studies.trial_record import (
    TrialKind,
    TrialOutcome,
    TrialPhase,
    TrialRecord,
    WhyEnded,
    read_record,
    record_outcome,
)

__all__ = [
    "DEFAULT_STUDY_NAME",
    "Claim",
    "OutputFolder",
    "Owner",
    "PresetState",
    "RowState",
    "StatusRow",
    "StudyStatus",
    "StudyTerms",
    "TrialKind",
    "TrialOutcome",
    "TrialPhase",
    "TrialRecord",
    "WhyEnded",
    "best_record",
    "check_storage_url",
    "claim_next",
    "create_or_join_study",
    "default_results_name",
    "default_storage_url",
    "ended_records",
    "enqueue_presets",
    "final_state",
    "load_study",
    "mask_password",
    "open_storage",
    "open_storage_for_reading",
    "preset_order",
    "read_record",
    "record_outcome",
    "render_results",
    "storage_error_text",
    "study_space",
    "study_status",
    "study_terms",
    "suggest_all",
    "to_distribution",
    "version_notes",
    "write_json",
    "write_text",
]
