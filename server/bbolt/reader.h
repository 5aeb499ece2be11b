// Reads bbolt files that may come from anywhere.
//
// Every number in the file is checked before it is used: a damaged or hostile file ends in DataLoss
// that says what is wrong and on which page, never in a crash or an endless walk. In one walk a
// page is read once at most, overflow pages included, so no file costs more than reading it once;
// the depth of a tree is limited.
//
// Thread: one. Memory: a bit per page, and of each level of the tree one page run while it is
// looked at (a leaf) or the ids of its children (a branch).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/bbolt/format.h"

namespace conclave::bbolt {

// The file's bytes.
class Source {
 public:
  virtual ~Source() = default;
  [[nodiscard]] virtual uint64_t size() const = 0;
  // All of `out`, which lies within size().
  [[nodiscard]] virtual absl::Status Read(uint64_t offset, std::span<char> out) = 0;
};

inline constexpr uint32_t kPageSizeMin = 512;
inline constexpr uint32_t kPageSizeMax = 64 << 10;
inline constexpr int kDepthMax = 64;
// Of one page with its overflow; bbolt itself has values below 2 GiB.
inline constexpr uint64_t kRunBytesMax = uint64_t{2} << 30;

class Database {
 public:
  // Reads the meta pages. `source` outlives the database. DataLoss: not a bbolt file, or damaged.
  [[nodiscard]] static absl::StatusOr<Database> Open(Source* source);

  // As bbolt counts them: pages behind the last one in use do not belong to it.
  [[nodiscard]] uint64_t size_bytes() const { return meta_.pages * meta_.page_size; }
  [[nodiscard]] const Meta& meta() const { return meta_; }

  // The names of the buckets, in order. DataLoss if there is anything else.
  [[nodiscard]] absl::StatusOr<std::vector<std::string>> Buckets();

  // The pairs of a bucket in the order of their keys; the views live during the call. A bucket
  // within it is shown with an empty value. What `visit` says beside OK ends the walk. NotFound if
  // there is no such bucket.
  using Visit = absl::FunctionRef<absl::Status(std::string_view key, std::string_view value)>;
  [[nodiscard]] absl::Status ForEach(std::string_view bucket, Visit visit);

  // Walks everything: each page is in use once, or free. DataLoss says which one is not.
  [[nodiscard]] absl::Status Check();

 private:
  using VisitElement =
      absl::FunctionRef<absl::Status(std::string_view key, std::string_view value, bool is_bucket)>;

  Database(Source* source, const Meta& meta) : source_(source), meta_(meta) {}

  void BeginWalk() { seen_.assign(meta_.pages, false); }
  // Reads a page with its overflow, and marks it.
  absl::Status ReadRun(uint64_t id, std::string* run, PageHeader* header);
  // The tree below a page. `last` is the key before it in this walk.
  absl::Status Walk(uint64_t id, int depth, std::string* last, VisitElement visit);
  absl::Status WalkLeaf(std::string_view run, const PageHeader& header, std::string* last,
                        VisitElement visit);
  absl::StatusOr<std::vector<uint64_t>> Children(std::string_view run, const PageHeader& header);
  // The bucket whose header and, if it is inline, page stand in `value`.
  absl::Status WalkBucket(std::string_view value, VisitElement visit);
  absl::Status CheckTree(std::string_view bucket_value, int depth);
  absl::Status CheckFreelist();

  Source* source_;
  Meta meta_;
  std::vector<bool> seen_;
};

}  // namespace conclave::bbolt
