"""Sites at which anybody can have a page, so that a page there is no company's own domain. Pure.

Most of them, shops and pages of hosts such as `myshopify.com` and `github.io`, stand in the private part of the public suffix list
(publicsuffix.org), whose snapshot comes with tldextract. These are the others. No kept package has them, so the list was gathered by hand,
from the addresses that each service gives out to its users. Whoever works at one of them is known by their e-mail address.
"""

from __future__ import annotations

PLATFORMS = frozenset(
    # social networks, messengers and profiles
    " about.me angel.co bandcamp.com behance.net bsky.app bsky.social clutch.co crunchbase.com discord.com"
    " discord.gg dribbble.com facebook.com fb.com fb.me flickr.com github.com gitlab.com glassdoor.com gofundme.com"
    " gravatar.com indeed.com instagr.am instagram.com issuu.com kakao.com kununu.com lin.ee line.me linkedin.cn"
    " linkedin.com m.me mastodon.social medium.com meetup.com messenger.com ok.ru onlyfans.com patreon.com"
    " pinterest.com producthunt.com quora.com reddit.com researchgate.net signal.me skype.com slideshare.net"
    " snapchat.com soundcloud.com spotify.com stackoverflow.com substack.com t.me telegram.me telegram.org"
    " threads.com threads.net tiktok.com trustpilot.com tumblr.com twitch.tv twitter.com upwork.com viber.com"
    " vimeo.com vk.com wa.me wechat.com weibo.com wellfound.com whatsapp.com x.com xing.com yelp.com youtu.be"
    " youtube.com"
    # shorteners and pages of links
    " amzn.to beacons.ai bio.link bio.site bit.ly bitly.com buff.ly campsite.bio cutt.ly flow.page forms.gle g.page"
    " goo.gl hubs.la hubs.li hubs.ly is.gd linkin.bio linktr.ee lnk.bio lnk.to lnkd.in ow.ly pin.it qr.io rb.gy"
    " rebrand.ly s.id share.hsforms.com shorturl.at smarturl.it solo.to spoti.fi t.co t.ly taplink.cc tiny.cc"
    " tinyurl.com trib.al url.ie v.gd yt.be"
    # site builders, shops and forms
    " 000webhostapp.com bigcartel.com blogger.com business.site calendar.google.com calendly.com canva.com"
    " canva.site docs.google.com drive.google.com durable.co etsy.com eventbrite.com ecwid.com fiverr.com free.fr"
    " ghost.io godaddysites.com groups.google.com gumroad.com homestead.com hpage.com hubspotpagebuilder.com"
    " hubspotpagebuilder.eu jimdo.com jimdofree.com jimdosite.com jotform.com kickstarter.com maps.google.com"
    " mailchi.mp mailchimpsites.com my-free.website mybusiness.com mystrikingly.com notion.so one.page"
    " onuniverse.com over-blog.com pagecloud.com pages.google.com pb.design shopify.com simplesite.com site123.me"
    " sites.google.com squarespace.com square.site squareup.com strikingly.com surveymonkey.com tally.so"
    " teachable.com thinkific.com tilda.cc tilda.ws typeform.com ucraft.net unbouncepages.com ueniweb.com"
    " vistaprintdigital.com voog.com webador.com webnode.com webnode.page websites.co.in weebly.com wix.com"
    " wordpress.com wufoo.com zohosites.com zyrosite.com".split()
)
"""Registered domains and hosts."""
