#include "conclave/discovery/cache_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "conclave/base/crc32c.h"

namespace conclave {
namespace {

constexpr std::string_view kMagic = "CNCLVDSC";
constexpr uint32_t kVersion = 1;
constexpr size_t kHeadBytes = 8 + 4 + 4 + 8;
constexpr absl::Duration kWriteAtMost = absl::Minutes(1);
constexpr size_t kNameBytesMax = 150;  // of a file's name, before its hash and its suffix

void PutNumber(uint64_t number, size_t bytes, std::string* out) {
  for (size_t i = 0; i < bytes; ++i) out->push_back(static_cast<char>(number >> (8 * i)));
}

void PutText(std::string_view text, std::string* out) {
  PutNumber(text.size(), 4, out);
  out->append(text);
}

// Reads on until something is wrong; then everything reads as nothing.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  uint64_t Number(size_t bytes) {
    if (bytes_.size() < bytes) ok_ = false;
    if (!ok_) return 0;
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; ++i) {
      number |= static_cast<uint64_t>(static_cast<unsigned char>(bytes_[i])) << (8 * i);
    }
    bytes_.remove_prefix(bytes);
    return number;
  }
  std::string Text() {
    const uint64_t size = Number(4);
    if (size > bytes_.size()) ok_ = false;
    if (!ok_) return {};
    std::string text(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return text;
  }
  // A count of things that take at least `bytes_each`.
  size_t Count(size_t bytes_each) {
    const uint64_t count = Number(4);
    if (count > bytes_.size() / bytes_each) ok_ = false;
    return ok_ ? count : 0;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

void PutEntry(const InstanceEntry& entry, std::string* out) {
  const Instance& instance = entry.instance;
  for (const std::string* text : {&entry.key, &instance.id, &instance.address, &instance.version,
                                  &instance.zone, &instance.raw_metadata}) {
    PutText(*text, out);
  }
  PutNumber(static_cast<uint64_t>(instance.state), 1, out);
  PutNumber(instance.weight.has_value() ? 1 : 0, 1, out);
  PutNumber(static_cast<uint64_t>(instance.weight.value_or(0)), 8, out);
  PutNumber(instance.tags.size(), 4, out);
  for (const std::string& tag : instance.tags) PutText(tag, out);
  PutNumber(instance.attrs.size(), 4, out);
  for (const auto& [name, value] : instance.attrs) {
    PutText(name, out);
    PutText(value, out);
  }
}

bool ReadEntry(Reader& reader, const std::string& service, InstanceEntry* entry) {
  Instance& instance = entry->instance;
  instance.service = service;
  for (std::string* text : {&entry->key, &instance.id, &instance.address, &instance.version,
                            &instance.zone, &instance.raw_metadata}) {
    *text = reader.Text();
  }
  const uint64_t state = reader.Number(1);
  if (state > static_cast<uint64_t>(InstanceState::kDown)) return false;
  instance.state = static_cast<InstanceState>(state);
  const bool has_weight = reader.Number(1) != 0;
  const auto weight = static_cast<int64_t>(reader.Number(8));
  if (has_weight) instance.weight = weight;
  instance.tags.resize(reader.Count(4));
  for (std::string& tag : instance.tags) tag = reader.Text();
  for (size_t left = reader.Count(8); left > 0; --left) {
    std::string name = reader.Text();
    instance.attrs[std::move(name)] = reader.Text();
  }
  return reader.ok();
}

absl::Status SystemError(std::string_view what, const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat(std::string(what), " ", path));
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  const int number_;
};

absl::Status WriteAll(int file, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return SystemError("cannot write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

}  // namespace

std::string CacheFile::Encode(const Content& content) {
  std::string body;
  PutText(content.service, &body);
  PutNumber(static_cast<uint64_t>(content.revision), 8, &body);
  PutNumber(static_cast<uint64_t>(absl::ToUnixMillis(content.saved_at)), 8, &body);
  PutNumber(content.instances.size(), 4, &body);
  for (const auto& entry : content.instances.entries()) PutEntry(*entry, &body);
  std::string bytes(kMagic);
  PutNumber(kVersion, 4, &bytes);
  PutNumber(Crc32c(body), 4, &bytes);
  PutNumber(body.size(), 8, &bytes);
  return bytes.append(body);
}

absl::StatusOr<CacheFile::Content> CacheFile::Decode(std::string_view bytes) {
  if (bytes.size() < kHeadBytes || !bytes.starts_with(kMagic)) {
    return absl::DataLossError("it is not a file of this library's");
  }
  Reader head(bytes.substr(kMagic.size(), kHeadBytes - kMagic.size()));
  const uint64_t version = head.Number(4);
  const uint64_t crc = head.Number(4);
  const uint64_t size = head.Number(8);
  if (version != kVersion) {
    return absl::DataLossError(absl::StrCat("it is of version ", version, ", not ", kVersion));
  }
  const std::string_view body = bytes.substr(kHeadBytes);
  if (body.size() != size || Crc32c(body) != crc) {
    return absl::DataLossError("it is cut short or damaged (its checksum is wrong)");
  }
  Reader reader(body);
  Content content;
  content.service = reader.Text();
  content.revision = static_cast<int64_t>(reader.Number(8));
  content.saved_at = absl::FromUnixMillis(static_cast<int64_t>(reader.Number(8)));
  constexpr size_t kEntryBytesMin = 6 * 4 + 2 + 8 + 2 * 4;
  const size_t count = reader.Count(kEntryBytesMin);
  if (count > kEntriesMax) return absl::DataLossError("it has too many entries");
  InstanceList::Entries entries;
  for (size_t i = 0; i < count; ++i) {
    auto entry = std::make_shared<InstanceEntry>();
    if (!ReadEntry(reader, content.service, entry.get())) break;
    if (!entries.empty() && entries.back()->key >= entry->key) {
      return absl::DataLossError("its entries are out of order");
    }
    entries.push_back(std::move(entry));
  }
  if (!reader.ok() || !reader.at_end() || entries.size() != count || content.revision <= 0) {
    return absl::DataLossError("its content makes no sense");
  }
  content.instances = InstanceList(std::move(entries));
  return content;
}

std::string CacheFile::PathOf(std::string_view directory, std::string_view service) {
  std::string name;
  for (const char c : service) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' ||
                       (c == '.' && !name.empty());
    if (plain) {
      name.push_back(c);
    } else {
      absl::StrAppendFormat(&name, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  if (name.size() > kNameBytesMax) {
    // Two checksums with different seeds: 64 bits that tell long names apart.
    const std::string hash =
        absl::StrFormat("~%08x%08x", Crc32c(service), Crc32cExtend(Crc32c("long"), service));
    name = name.substr(0, kNameBytesMax) + hash;
  }
  return absl::StrCat(std::string(directory), "/", name, ".instances");
}

absl::StatusOr<CacheFile::Content> CacheFile::Read(const std::string& path,
                                                   std::string_view service) {
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.number() < 0) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat("there is no ", path));
    return absl::PermissionDeniedError(SystemError("cannot open", path).message());
  }
  struct stat status {};
  if (fstat(file.number(), &status) != 0) return SystemError("cannot look at", path);
  if (!S_ISREG(status.st_mode)) return absl::PermissionDeniedError("it is not a plain file");
  if (status.st_uid != geteuid()) return absl::PermissionDeniedError("it is another user's");
  if ((status.st_mode & 022) != 0) {
    return absl::PermissionDeniedError("others may write to it (its mode should be 0600)");
  }
  if (static_cast<uint64_t>(status.st_size) > kBytesMax) {
    return absl::DataLossError(absl::StrCat("it has more than ", kBytesMax, " bytes"));
  }
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = read(file.number(), bytes.data() + filled, bytes.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("cannot read", path);
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  bytes.resize(filled);
  absl::StatusOr<Content> content = Decode(bytes);
  if (content.ok() && content->service != service) {
    return absl::DataLossError("it is another service's");
  }
  return content;
}

absl::Status CacheFile::Write(const std::string& path, std::string_view bytes) {
  if (bytes.size() > kBytesMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the set has more than ", kBytesMax, " bytes"));
  }
  const std::filesystem::path target(path);
  std::error_code error;
  if (!std::filesystem::exists(target.parent_path(), error) &&
      std::filesystem::create_directories(target.parent_path(), error)) {
    std::filesystem::permissions(target.parent_path(), std::filesystem::perms::owner_all, error);
  }
  // One name for all processes, so that no crash leaves more than one file behind. Whoever finds it
  // taken leaves the writing to the other process, which has the same set.
  const std::string temporary = path + ".new";
  struct stat status {};
  if (lstat(temporary.c_str(), &status) == 0) {
    if (absl::FromTimeT(status.st_mtime) + kWriteAtMost > absl::Now()) return absl::OkStatus();
    unlink(temporary.c_str());
  }
  absl::Status written;
  {
    const Descriptor file(
        open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.number() < 0) return SystemError("cannot create", temporary);
    written = WriteAll(file.number(), bytes, temporary);
    // Or a crash of the machine could leave an empty file under the name.
    if (written.ok() && fdatasync(file.number()) != 0) {
      written = SystemError("cannot sync", temporary);
    }
  }
  if (written.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    written = SystemError("cannot rename", temporary);
  }
  if (!written.ok()) unlink(temporary.c_str());
  return written;
}

}  // namespace conclave
