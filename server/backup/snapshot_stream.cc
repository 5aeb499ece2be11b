#include "conclave/server/backup/snapshot_stream.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

#include "conclave/api/wire/writer.h"
#include "conclave/server/backup/database_task.h"
#include "conclave/server/snapshot/sha256.h"

namespace conclave::backup {
namespace {

class SnapshotStream : public apply::StreamTask {
 public:
  explicit SnapshotStream(apply::StateMachine* state) : task_(state) {}

  Step Run(size_t* budget) override {
    if (!task_.Measure(budget)) return Step::kMore;
    while (bytes_.size() - position_ < kBlobBytes && !written_) {
      if (*budget == 0) return Step::kMore;
      bytes_.erase(0, std::exchange(position_, 0));
      written_ = !task_.Write(budget, kBlobBytes - bytes_.size(), &bytes_);
    }
    if (position_ < bytes_.size()) {
      const size_t size = std::min(kBlobBytes, bytes_.size() - position_);
      SetMessage(std::string_view(bytes_).substr(position_, size));
      position_ += size;
      return Step::kMessage;
    }
    if (ended_) return Step::kEnd;
    ended_ = true;
    const snapshot::Hash hash = hash_.Finish();
    Encode(std::string_view(hash.data(), hash.size()));
    return Step::kMessage;
  }

  Message TakeMessage() override { return std::move(message_); }

 private:
  void SetMessage(std::string_view blob) {
    sent_ += blob.size();
    hash_.Append(blob);
    Encode(blob);
  }

  // Fields of SnapshotResponse: 2 remaining bytes, 3 blob, 4 version.
  void Encode(std::string_view blob) {
    wire::Builder builder;
    builder.Reserve(blob.size() + 64);
    builder.AppendNumber(2, task_.bytes() - sent_);
    builder.AppendText(3, blob);
    builder.AppendText(4, task_.version());
    message_ = {builder.Take(), Bytes()};
  }

  DatabaseTask task_;
  snapshot::Sha256 hash_;
  std::string bytes_;    // of the file, not sent yet from `position_` on
  size_t position_ = 0;  // a large value gives many blobs
  uint64_t sent_ = 0;
  bool written_ = false;
  bool ended_ = false;
  Message message_;
};

}  // namespace

std::unique_ptr<apply::StreamTask> MakeSnapshotStream(apply::StateMachine* state) {
  return std::make_unique<SnapshotStream>(state);
}

}  // namespace conclave::backup
