#include "conclave/server/apply/member_change.h"

#include <algorithm>
#include <cctype>

#include "conclave/api/wire/reader.h"
#include "conclave/api/wire/requests.h"
#include "conclave/api/wire/writer.h"

namespace conclave::apply {
namespace {

using wire::Method;

// "host:port", "[::1]:port", ":port": Go's SplitHostPort.
bool IsHostPort(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view port = text.substr(colon + 1);
  if (port.empty() ||
      !std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return false;
  }
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return false;
    host = host.substr(1, host.size() - 2);
    return host.find_first_of("[]") == std::string_view::npos;
  }
  return host.find_first_of(":[]") == std::string_view::npos;
}

std::string_view Trimmed(std::string_view text) {
  const auto is_space = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// As etcd does: at least one, all of them good; sorted.
bool TakeUrls(const std::vector<std::string_view>& urls, std::vector<std::string>* out) {
  if (urls.empty() || urls.size() > kMemberUrlsMax) return false;
  for (const std::string_view url : urls) {
    const std::string_view trimmed = Trimmed(url);
    if (!IsPeerUrl(trimmed)) return false;
    out->emplace_back(trimmed);
  }
  std::sort(out->begin(), out->end());
  return true;
}

bool IsMemberMethod(uint8_t kind) {
  return kind == static_cast<uint8_t>(Method::kMemberAdd) ||
         kind == static_cast<uint8_t>(Method::kMemberRemove) ||
         kind == static_cast<uint8_t>(Method::kMemberUpdate) ||
         kind == static_cast<uint8_t>(Method::kMemberPromote);
}

}  // namespace

bool IsPeerUrl(std::string_view url) {
  if (url.size() > kMemberUrlBytesMax) return false;
  const size_t separator = url.find("://");
  if (separator == std::string_view::npos) return false;
  const std::string_view scheme = url.substr(0, separator);
  const std::string_view rest = url.substr(separator + 3);
  if (rest.find_first_of(" \t\r\n") != std::string_view::npos) return false;
  if (scheme == "unix" || scheme == "unixs") return !rest.empty();
  if (scheme != "http" && scheme != "https") return false;
  return rest.find_first_of("/?#@") == std::string_view::npos && IsHostPort(rest);
}

const wire::Error* ParseMemberChange(Method method, std::string_view request,
                                     MemberChange* change) {
  *change = MemberChange();
  change->method = method;
  if (method == Method::kMemberAdd) {
    wire::MemberAddRequest add;
    if (!wire::Parse(request, &add)) return &wire::kErrMalformed;
    change->is_learner = add.is_learner;
    return TakeUrls(add.peer_urls, &change->peer_urls) ? nullptr : &wire::kErrMemberBadUrls;
  }
  if (method == Method::kMemberUpdate) {
    wire::MemberUpdateRequest update;
    if (!wire::Parse(request, &update)) return &wire::kErrMalformed;
    change->id = update.id;
    return TakeUrls(update.peer_urls, &change->peer_urls) ? nullptr : &wire::kErrMemberBadUrls;
  }
  wire::MemberIdRequest which;
  if (!wire::Parse(request, &which)) return &wire::kErrMalformed;
  change->id = which.id;
  return nullptr;
}

// Body: 1 id; 2 peer URL, repeated; 3 learner.
Bytes EncodeMemberChange(uint64_t proposer, uint64_t sequence, const MemberChange& change) {
  wire::Builder builder;
  WriteCommandHeader(builder.Extend(kCommandHeaderSize),
                     {static_cast<uint8_t>(change.method), proposer, sequence});
  builder.AppendNumber(1, change.id);
  for (const std::string& url : change.peer_urls) builder.AppendElement(2, url);
  builder.AppendNumber(3, uint64_t{change.is_learner});
  return builder.Take();
}

std::optional<MemberCommand> DecodeMemberChange(std::string_view context) {
  const std::optional<CommandHeader> header = ReadCommandHeader(context);
  if (!header.has_value() || !IsMemberMethod(header->kind)) return std::nullopt;
  MemberCommand command;
  command.header = *header;
  command.change.method = static_cast<Method>(header->kind);
  wire::Reader reader(context.substr(kCommandHeaderSize));
  while (reader.Next()) {
    switch (reader.tag()) {
      case wire::VarintTag(1):
        command.change.id = reader.Varint();
        break;
      case wire::LengthTag(2):
        command.change.peer_urls.emplace_back(reader.String());
        break;
      case wire::VarintTag(3):
        command.change.is_learner = reader.Bool();
        break;
      default:
        reader.Skip(3);
    }
  }
  if (!reader.ok() || command.change.peer_urls.size() > kMemberUrlsMax) return std::nullopt;
  return command;
}

}  // namespace conclave::apply
