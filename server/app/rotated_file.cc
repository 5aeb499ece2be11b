#include "conclave/server/app/rotated_file.h"

#include <fcntl.h>
#include <spdlog/sinks/base_sink.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace conclave::app {
namespace {

using Time = std::chrono::system_clock::time_point;
using std::chrono::milliseconds;

constexpr char kTimeFormat[] = "%Y-%m-%dT%H-%M-%S";
constexpr size_t kTimeSize = sizeof "2006-01-02T15-04-05.000" - 1;
constexpr std::string_view kPacked = ".gz";

std::string TimeText(Time time, bool local) {
  const int64_t ms = std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
  const auto seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  (local ? localtime_r : gmtime_r)(&seconds, &parts);
  char text[kTimeSize + 1];
  (void)std::strftime(text, sizeof text, kTimeFormat, &parts);
  return absl::StrFormat("%s.%03d", text, static_cast<int>(ms % 1000));
}

// Of a name that TimeText has made; false of any other.
bool ReadTime(std::string_view text, bool local, std::time_t* time) {
  if (text.size() != kTimeSize || text[kTimeSize - 4] != '.') return false;
  std::tm parts{};
  parts.tm_isdst = -1;
  const std::string owned(text);
  const char* end = strptime(owned.c_str(), kTimeFormat, &parts);
  if (end != owned.c_str() + kTimeSize - 4) return false;
  *time = local ? mktime(&parts) : timegm(&parts);
  return true;
}

// The files that one log has put aside.
class Archive {
 public:
  Archive(std::filesystem::path path, const LogRotation& rotation)
      : folder_(path.parent_path().empty() ? "." : path.parent_path()),
        stem_(path.stem().string() + "-"),
        ending_(path.extension().string()),
        rotation_(rotation) {}

  // Where the current file goes.
  std::string NewName() const {
    for (Time time = std::chrono::system_clock::now();; time += milliseconds(1)) {
      const auto name = folder_ / (stem_ + TimeText(time, rotation_.local_time) + ending_);
      if (!std::filesystem::exists(name) && !std::filesystem::exists(name.string() + ".gz")) {
        return name.string();
      }
    }
  }

  // Removes what is too much or too old, and packs the rest.
  void CleanUp() const {
    std::vector<Kept> files = Files();
    std::sort(files.begin(), files.end(),
              [](const Kept& a, const Kept& b) { return a.name > b.name; });
    const std::time_t oldest =
        std::chrono::system_clock::to_time_t(std::chrono::system_clock::now() - rotation_.age_max);
    std::error_code ignored;  // a file that somebody else has removed is as good as removed
    for (size_t i = 0; i < files.size(); ++i) {
      const bool too_many = rotation_.files > 0 && i >= rotation_.files;
      const bool too_old = rotation_.age_max.count() > 0 && files[i].time < oldest;
      if (too_many || too_old) {
        std::filesystem::remove(files[i].path, ignored);
      } else if (rotation_.compress && !files[i].packed) {
        Pack(files[i].path);
      }
    }
  }

 private:
  struct Kept {
    std::filesystem::path path;
    std::string name;  // without .gz: newer ones are greater
    std::time_t time = 0;
    bool packed = false;
  };

  std::vector<Kept> Files() const {
    std::vector<Kept> files;
    std::error_code error;
    std::filesystem::directory_iterator at(folder_, error);
    for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
      Kept file{.path = at->path(), .name = at->path().filename().string()};
      if (file.name.ends_with(kPacked)) {
        file.packed = true;
        file.name.resize(file.name.size() - kPacked.size());
      }
      std::string_view time = file.name;
      if (!time.starts_with(stem_) || !time.ends_with(ending_)) continue;
      time.remove_prefix(stem_.size());
      time.remove_suffix(std::min(time.size(), ending_.size()));
      if (ReadTime(time, rotation_.local_time, &file.time)) files.push_back(std::move(file));
    }
    return files;
  }

  // What cannot be packed stays as it is.
  static void Pack(const std::filesystem::path& path) {
    const std::string packed = absl::StrCat(path.string(), std::string(kPacked));
    const std::string half = packed + ".tmp";
    std::ifstream in(path, std::ios::binary);
    gzFile out = gzopen(half.c_str(), "wbe");
    if (out == nullptr) return;
    bool good = in.good();
    std::vector<char> buffer(64 << 10);
    while (good && in) {
      in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
      const auto size = static_cast<unsigned>(in.gcount());
      good = size == 0 || gzwrite(out, buffer.data(), size) == static_cast<int>(size);
    }
    good = gzclose(out) == Z_OK && good && in.eof();
    std::error_code ignored;  // it is tried again after the next rotation
    if (good) std::filesystem::rename(half, packed, ignored);
    std::filesystem::remove(good ? path : std::filesystem::path(half), ignored);
  }

  const std::filesystem::path folder_;
  const std::string stem_;
  const std::string ending_;
  const LogRotation rotation_;
};

class RotatedFile final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  RotatedFile(std::string path, const LogRotation& rotation)
      : path_(std::move(path)), bytes_max_(rotation.file_bytes_max), archive_(path_, rotation) {}
  ~RotatedFile() override {
    if (cleaner_.joinable()) {
      {
        std::lock_guard lock(cleaner_mutex_);
        ending_ = true;
      }
      wake_.notify_one();
      cleaner_.join();
    }
    if (fd_ >= 0) close(fd_);
  }

  bool Open() {
    fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    struct stat about {};
    if (fd_ < 0 || fstat(fd_, &about) != 0) return false;
    bytes_ = static_cast<uint64_t>(about.st_size);
    return true;
  }
  // Also of what an earlier life has left.
  void StartCleaning() {
    cleaner_ = std::thread([this] { Clean(); });
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& line) override {
    text_.assign(line.payload.data(), line.payload.size());
    text_.push_back('\n');
    if (bytes_max_ > 0 && bytes_ > 0 && bytes_ + text_.size() > bytes_max_) Rotate();
    if (fd_ < 0 && !Open()) spdlog::throw_spdlog_ex("cannot open " + path_, errno);
    std::string_view rest = text_;
    while (!rest.empty()) {
      const ssize_t written = write(fd_, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) spdlog::throw_spdlog_ex("cannot write " + path_, errno);
      rest.remove_prefix(static_cast<size_t>(written));
      bytes_ += static_cast<uint64_t>(written);
    }
  }
  void flush_() override {}

 private:
  // A file that cannot be put aside grows on.
  void Rotate() {
    if (std::rename(path_.c_str(), archive_.NewName().c_str()) != 0) return;
    close(std::exchange(fd_, -1));
    if (!Open()) spdlog::throw_spdlog_ex("cannot open " + path_, errno);
    {
      std::lock_guard lock(cleaner_mutex_);
      to_clean_ = true;
    }
    wake_.notify_one();
  }
  void Clean() {
    std::unique_lock lock(cleaner_mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return to_clean_ || ending_; });
      if (!to_clean_) return;
      to_clean_ = false;
      lock.unlock();
      archive_.CleanUp();
      lock.lock();
    }
  }

  const std::string path_;
  const uint64_t bytes_max_;
  const Archive archive_;
  int fd_ = -1;
  uint64_t bytes_ = 0;
  std::string text_;  // kept for its capacity

  std::mutex cleaner_mutex_;
  std::condition_variable wake_;
  bool to_clean_ = true;
  bool ending_ = false;
  std::thread cleaner_;
};

}  // namespace

absl::StatusOr<spdlog::sink_ptr> OpenRotatedFile(const std::string& path,
                                                 const LogRotation& rotation) {
  auto file = std::make_shared<RotatedFile>(path, rotation);
  if (!file->Open()) return absl::InvalidArgumentError(std::strerror(errno));
  if (rotation.file_bytes_max > 0) file->StartCleaning();
  return file;
}

}  // namespace conclave::app
