// All failpoints, with gofail's names for them where etcd has the place.
#pragma once

#include <string_view>

namespace conclave::failpoint {

inline constexpr std::string_view kNames[] = {
    "afterCommit",                      // a turn's committed entries are applied
    "applyAfterOpenSnapshot",           // a leader's state is in use
    "applyBeforeOpenSnapshot",          // a leader's state is complete on the disk
    "beforeApplyOneConfChange",         //
    "beforeApplyOneEntryNormal",        //
    "beforeCheckpointInLeaseRenew",     // renewals are about to be replicated
    "beforeCommit",                     // a turn's committed entries are about to be applied
    "beforeSendWatchResponse",          //
    "compactAfterCommitBatch",          // one slice of a compaction is done
    "compactBeforeCommitBatch",         //
    "compactBeforeSetFinishedCompact",  // the last slice is done, nobody has been told
    "raftAfterApplySnap",               //
    "raftAfterSave",                    // entries are durable, the core does not know it
    "raftAfterSaveSnap",                // a snapshot is durable, the core does not know it
    "raftBeforeApplySnap",              //
    "raftBeforeFollowerSend",           //
    "raftBeforeLeaderSend",             //
    "raftBeforeSave",                   // entries are about to be written
    "raftBeforeSaveSnap",               // a piece of a snapshot is about to be written
    "walAfterSync",                     //
    "walBeforeSync",                    // entries are written, but not durable
};

}  // namespace conclave::failpoint
