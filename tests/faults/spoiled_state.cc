#include "conclave/tests/faults/spoiled_state.h"

#include <memory>

#include "conclave/base/status.h"
#include "conclave/server/apply/snapshot.h"
#include "conclave/server/apply/state_machine.h"
#include "conclave/server/node/identity.h"
#include "conclave/server/node/settings.h"
#include "conclave/server/posix/disk.h"
#include "conclave/server/snapshot/reader.h"
#include "conclave/server/snapshot/writer.h"

namespace conclave::testing {

absl::Status SpoilState(const std::string& data_dir) {
  CONCLAVE_ASSIGN_OR_RETURN(const auto disk, posix::OpenDisk(data_dir));
  CONCLAVE_ASSIGN_OR_RETURN(const auto identity, node::ReadIdentity(*disk));
  if (!identity.has_value()) return absl::NotFoundError("no member's directory");
  node::Options options;
  options.id = identity->member_id;
  options.cluster_id = identity->cluster_id;
  CONCLAVE_ASSIGN_OR_RETURN(const auto newest, snapshot::OpenNewest(*disk, options.cluster_id));
  if (newest.reader == nullptr) return absl::NotFoundError("no snapshot");
  apply::RestoreTask restore(node::StateSettings(options));
  while (true) {
    CONCLAVE_ASSIGN_OR_RETURN(const auto piece, newest.reader->Next());
    if (!piece.has_value()) break;
    CONCLAVE_RETURN_IF_ERROR(restore.Feed(piece->view()));
  }
  CONCLAVE_ASSIGN_OR_RETURN(const auto state, restore.Finish());
  {
    mvcc::WriteTxn txn = state->store().Begin();
    txn.Put(kSpoiledKey, "value", 0);
    txn.Commit();
  }
  CONCLAVE_ASSIGN_OR_RETURN(
      const auto writer,
      snapshot::Writer::Create(*disk, {options.cluster_id, newest.reader->meta()}));
  apply::SnapshotTask task(state.get());
  for (Bytes piece = task.Next(4096); !piece.empty(); piece = task.Next(4096)) {
    CONCLAVE_RETURN_IF_ERROR(writer->Append(piece.view()));
  }
  return writer->Finish().status();
}

}  // namespace conclave::testing
