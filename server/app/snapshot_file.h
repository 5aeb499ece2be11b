// A snapshot on disk: a bbolt file, with the SHA-256 of it behind it if it was taken through the
// Maintenance service.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/server/bbolt/reader.h"

namespace conclave::app {

// Thread: one.
class SnapshotFile : public bbolt::Source {
 public:
  // NotFound, or what the system says.
  static absl::StatusOr<std::unique_ptr<SnapshotFile>> Open(const std::string& path);

  // Of the database, without the hash.
  uint64_t size() const override { return size_; }
  absl::Status Read(uint64_t offset, std::span<char> out) override;

  // A database is a whole number of pages, so the hash shows by what is left over.
  bool has_hash() const { return has_hash_; }
  // Reads it all. DataLoss: there is none, or it is another one; with etcd's texts.
  absl::Status CheckHash();

 private:
  SnapshotFile(std::string path, std::ifstream stream, uint64_t size);

  const std::string path_;
  std::ifstream stream_;
  bool has_hash_;
  uint64_t size_;
};

}  // namespace conclave::app
