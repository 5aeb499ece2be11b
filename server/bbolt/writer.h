// Writes a bbolt file as a stream, from its first byte to its last.
//
// The first pages say how many pages there are and where the root is. So a file is written twice:
//
//   Writer measure;                  Writer write(measure.Finish());
//   for each bucket, by name:        the same again, and between the calls
//     measure.BeginBucket(name)        file += write.TakeOutput()
//     for each key, ascending:       write.Finish()
//       measure.Add(key, size, ...)
//
// The first writer gives out no bytes and asks for no values; both passes must say the same
// (CHECK). What comes out is the tree that bbolt would have built of pages filled to the brim: no
// page is free, the freelist is empty.
//
// Thread: one. Memory: a page run for each level of the tree, and what has not been taken yet.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "conclave/server/bbolt/format.h"

namespace conclave::bbolt {

inline constexpr uint32_t kPageSize = 4096;

// What the first pass has found out.
struct Layout {
  uint64_t root = 0;
  uint64_t pages = 0;

  uint64_t bytes() const { return pages * kPageSize; }
  friend bool operator==(const Layout&, const Layout&) = default;
};

class Writer {
 public:
  Writer() = default;
  explicit Writer(const Layout& layout);

  // Buckets in the order of their names.
  void BeginBucket(std::string_view name);
  // The next pair of the bucket; keys ascend and are not empty (CHECK). bbolt itself writes no keys
  // above 32 KiB, but reads them. `fill` writes value_size bytes (and
  // is not called in the first pass).
  void Add(std::string_view key, size_t value_size, absl::FunctionRef<void(char* at)> fill);
  void Add(std::string_view key, std::string_view value);

  // Ends the file; no call but TakeOutput may follow.
  Layout Finish();

  [[nodiscard]] size_t output_size() const { return output_.size(); }
  [[nodiscard]] std::string TakeOutput() { return std::exchange(output_, {}); }

 private:
  struct Element {
    uint32_t flags = 0;
    uint32_t key_size = 0;
    uint32_t value_size = 0;
    uint64_t child = 0;  // of a branch's
  };
  // A page that is being filled.
  struct Page {
    std::vector<Element> elements;
    uint64_t data_size = 0;
    std::string data;  // keys and values; in the first pass of a leaf only the first key

    uint64_t size() const { return kPageHeaderBytes + elements.size() * kElementBytes + data_size; }
    std::string_view first_key() const {
      return std::string_view(data).substr(0, elements.front().key_size);
    }
  };

  void AddToLeaf(std::string_view key, size_t value_size, uint32_t flags,
                 absl::FunctionRef<void(char* at)> fill);
  void AddToBranch(size_t level, std::string_view key, uint64_t child);
  // Gives the page its number and writes it.
  uint64_t Emit(Page* page, uint16_t flags);
  void FlushLeaf();
  void FlushBranch(size_t level);
  // Ends the tree; gives its root.
  uint64_t FinishTree();
  void EndBucket();
  bool measuring() const { return !layout_.has_value(); }

  std::optional<Layout> layout_;
  uint64_t next_page_ = 3;  // behind both metas and the freelist
  Page leaf_;
  std::vector<Page> branches_;                             // from the leaves up
  std::vector<std::pair<std::string, uint64_t>> buckets_;  // names and roots of those that ended
  std::optional<std::string> bucket_;                      // the open one
  std::string last_key_;
  std::string output_;
};

}  // namespace conclave::bbolt
